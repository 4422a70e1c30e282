// Consumes every token once and says how often it was the one that went through.
import { parentPort, workerData } from 'node:worker_threads'
import { Cloakroom } from 'cloakroom'

const room = await Cloakroom.open(workerData.path)
const tokens = room.formTokens()
const binding = { subject: { authenticated: 'ann' }, purpose: 'pay' }
if (workerData.forever) {
  parentPort.postMessage('ready')
  // Promises are pending at every moment until this thread is ended from outside.
  const jobs = room.dedupe('d')
  await jobs.register('never')
  jobs.waitFor('never')
  const watch = room.watch()
  for (;;) {
    watch.next()
    const batch = Array.from({ length: 200 }, (_, index) => room.handoff().set(`${index}`, { index }, 60))
    await Promise.race(batch)
  }
}
const answers = await Promise.all(workerData.keys.map((key) => tokens.consumeFormToken(key, binding)))
parentPort.postMessage(answers.filter((answer) => answer.outcome === 'proceed').length)
if (workerData.close) await room.close()
