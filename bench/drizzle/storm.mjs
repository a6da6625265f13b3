// One instance of bench/storm.py: Drizzle on postgres-js, as the guides configure it. Says that it is ready; at a line of
// standard input reads as the arguments say (its number, readers at once, reads of each, whether to prepare statements,
// seconds for all of it); says what it has seen by then as JSON.
import readline from 'node:readline'
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import postgres from 'postgres'

const item = pgTable('item', { id: integer('id').primaryKey(), name: text('name'), price: integer('price') })
const [number, readers, reads, prepare, longest] = process.argv.slice(2).map(Number)
const db = drizzle(postgres(process.env.DATABASE_URL, { max: 10, idle_timeout: 20, prepare: prepare === 1 }))
const seconds = []
const errors = []

async function read(id) {
  const begun = performance.now()
  try {
    const [row] = await db.select().from(item).where(eq(item.id, id))
    if (row?.id !== id) throw new Error("another's row")
    seconds.push((performance.now() - begun) / 1000)
  } catch (error) {
    errors.push((error.cause ?? error).message)
  }
}

async function reader(first) {
  for (let n = 0; n < reads; n++) await read(first + n)
}

readline.createInterface({ input: process.stdin }).once('line', async () => {
  const end = new Promise((resolve) => setTimeout(resolve, longest * 1000))
  const all = Promise.all(Array.from({ length: readers }, (_, n) => reader((number * readers + n) * reads + 1)))
  await Promise.race([all, end])
  console.log(JSON.stringify({ seconds, errors }))
})
console.log('ready')
