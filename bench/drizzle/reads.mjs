// Drizzle on postgres-js, as the guides configure it. Reads a number of reads from each line of standard input, does
// them with 8 at a time, and answers with the microseconds of CPU that they took.
import readline from 'node:readline'
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import postgres from 'postgres'

const item = pgTable('item', { id: integer('id').primaryKey(), name: text('name'), price: integer('price') })
const client = postgres(process.env.DATABASE_URL, { max: 10, idle_timeout: 20 })
const db = drizzle(client)

async function worker(reads) {
  for (let id = 1; id <= reads; id++) await db.select().from(item).where(eq(item.id, id))
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const before = process.cpuUsage()
  await Promise.all(Array.from({ length: 8 }, () => worker(Number(line))))
  const { user, system } = process.cpuUsage(before)
  console.log(user + system)
}
await client.end()
