// Drizzle on postgres-js behind Node's own HTTP server, bundled by esbuild: /api/item/ID, and /api/slow/ID for a slow
// statement. Prints its port, PORT or a free one. With `postgres-js` as its argument without Drizzle.
import http from 'node:http'
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import postgres from 'postgres'

const item = pgTable('item', { id: integer('id').primaryKey(), name: text('name'), price: integer('price') })
const client = postgres(process.env.DATABASE_URL, { max: 10, idle_timeout: 20 })
const db = drizzle(client)
const read =
  process.argv[2] === 'postgres-js'
    ? (id) => client`SELECT id, name, price FROM item WHERE id = ${id}`
    : (id) => db.select().from(item).where(eq(item.id, id))

const server = http.createServer(async (request, response) => {
  const id = Number(request.url.split('/').pop())
  const slow = request.url.startsWith('/api/slow/')
  const [row] = slow ? await db.execute(sql`SELECT pg_sleep(0.2), ${id} AS id`) : await read(id)
  response.writeHead(row ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(row ?? null))
})
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => console.log(server.address().port))
