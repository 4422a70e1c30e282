// Takes states, and writes the id of each that was answered, until it is killed.
import { writeSync } from 'node:fs'
import { Cloakroom } from 'cloakroom'

const room = await Cloakroom.open(process.argv[2])
const handoff = room.handoff()
const total = Number(process.argv[3])
let next = 0
async function taker() {
  while (next < total) {
    const id = `id-${next++}`
    if (await handoff.getAndDelete(id)) writeSync(1, `${id}\n`)
  }
}
writeSync(1, 'ready\n')
await Promise.all(Array.from({ length: 64 }, taker))
