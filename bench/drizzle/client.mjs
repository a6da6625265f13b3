// Drizzle on postgres-js as the guides configure it, and postgres-js alone: the first argument says which. Commands and
// answers are those of bench/clients.py.
import readline from 'node:readline'
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import postgres from 'postgres'

const item = pgTable('item', { id: integer('id').primaryKey(), name: text('name'), price: integer('price') })
const withDrizzle = process.argv[2] === 'drizzle'
let client, db, sessions

const read = (id) =>
  withDrizzle
    ? db.select().from(item).where(eq(item.id, id))
    : client`SELECT id, name, price FROM item WHERE id = ${id}`

async function timed(work) {
  const before = performance.now()
  await work()
  return performance.now() - before
}

async function readAll(reads) {
  for (let id = 1; id <= reads; id++) await read(id)
}

const commands = {
  open: (url, number) => {
    client = postgres(url, { max: 10, idle_timeout: 20 })
    db = drizzle(client)
    sessions = Number(number)
  },
  first: () => timed(() => read(1)),
  end: () => {},
  warm: async (reads) => {
    const times = []
    for (let id = 1; id <= Number(reads); id++) times.push(await timed(() => read(id)))
    times.sort((a, b) => a - b)
    const middle = times.length >> 1
    return times.length % 2 ? times[middle] : (times[middle - 1] + times[middle]) / 2
  },
  load: async (reads) => {
    const before = process.cpuUsage()
    const clock = await timed(() => Promise.all(Array.from({ length: sessions }, () => readAll(Number(reads)))))
    const { user, system } = process.cpuUsage(before)
    return [user + system, clock / 1000]
  },
  close: () => client.end(),
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ')
  console.log(JSON.stringify((await commands[command](...words)) ?? null))
}
