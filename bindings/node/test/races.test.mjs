import { spawn } from 'node:child_process'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { Cloakroom } from 'cloakroom'
import { binding, place, room, token } from './room.mjs'

const program = (name) => new URL(`programs/${name}`, import.meta.url)

test('of many promises for one token exactly one goes through', async () => {
  const tokens = (await room()).formTokens()
  for (let round = 0; round < 50; round += 1) {
    await tokens.insertFormToken(token(`k${round}`))
    const answers = await Promise.all(Array.from({ length: 64 }, () => tokens.consumeFormToken(`k${round}`, binding)))
    expect(answers.filter((answer) => answer.outcome === 'proceed').length).toBe(1)
  }
})

test('of many workers each token goes through once', async () => {
  const opened = await room()
  const keys = Array.from({ length: 2_000 }, (_, index) => `key-${index}`)
  await Promise.all(keys.map((key) => opened.formTokens().insertFormToken(token(key))))
  const counts = await Promise.all(Array.from({ length: 4 }, (_, index) => new Promise((done, failed) => {
    const worker = new Worker(program('worker.mjs'), { workerData: { path: opened.path, keys, close: index % 2 === 0 } })
    let count
    worker.on('message', (message) => (count = message))
    worker.on('error', failed)
    worker.on('exit', () => done(count))
  })))
  expect(counts.reduce((sum, count) => sum + count)).toBe(keys.length)
})

test('a worker that is terminated with promises pending harms nobody', async () => {
  const opened = await room()
  for (let round = 0; round < 8; round += 1) {
    const worker = new Worker(program('worker.mjs'), { workerData: { path: opened.path, keys: [], forever: true } })
    await new Promise((ready) => worker.once('message', ready))
    await new Promise((later) => setTimeout(later, 5 + round * 10))
    await worker.terminate()
    await opened.handoff().set('mine', { round }, 60)
    expect(await opened.handoff().get('mine')).toEqual({ round })
  }
  const { path } = opened
  await opened.close()
  // Nobody holds the file: another process can open it.
  const child = spawn(process.execPath, [program('load.mjs').pathname, path, '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  expect(await new Promise((done) => child.on('exit', done))).toBe(0)
})

test('what a killed process was answered stays taken, and nothing else is lost', async () => {
  const path = place()
  const total = 20_000
  const filled = await Cloakroom.open(path)
  const handoff = filled.handoff()
  await Promise.all(Array.from({ length: total }, (_, index) => handoff.set(`id-${index}`, { index }, 600)))
  await filled.close()
  let answered = []
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, [program('load.mjs').pathname, path, `${total}`], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.on('data', (data) => {
      text += data
      if (text.length > 20_000) child.kill('SIGKILL')
    })
    await new Promise((done) => child.stdout.on('close', done))
    answered = answered.concat(text.slice(0, text.lastIndexOf('\n')).split('\n').filter((line) => line.startsWith('id-')))
  }
  expect(answered.length).toBeGreaterThan(3_000)
  expect(new Set(answered).size).toBe(answered.length)
  const after = await room({}, path)
  let left = 0
  for (let cursor = null; ; ) {
    const page = await after.handoff().list({ cursor, limit: 1_000 })
    left += page.items.length
    if (!(cursor = page.next)) break
  }
  const back = await Promise.all(answered.map((id) => after.handoff().get(id)))
  expect(back.filter((state) => state !== null)).toEqual([])
  // In flight at each kill were 64 at most, taken or not.
  expect(left).toBeLessThanOrEqual(total - answered.length)
  expect(left).toBeGreaterThanOrEqual(total - answered.length - 3 * 64)
})

test('a process ends by itself with a room left open', async () => {
  const path = place()
  const text = `
    import { Cloakroom } from 'cloakroom'
    const room = await Cloakroom.open(${JSON.stringify(path)})
    await room.handoff().set('a', {}, 60)
    room.watch()
    console.log('done')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', text], { cwd: new URL('..', import.meta.url), stdio: ['ignore', 'pipe', 'inherit'] })
  expect(await new Promise((done) => child.on('exit', done))).toBe(0)
})

test('memory stays flat over many operations', async () => {
  const opened = await room({ durability: 'os' })
  const handoff = opened.handoff()
  const cache = opened.cache('c')
  const turn = async (rounds) => {
    for (let round = 0; round < rounds; round += 1) {
      await Promise.all(Array.from({ length: 500 }, (_, index) => handoff.set(`${index}`, { index }, 60)))
      await Promise.all(Array.from({ length: 500 }, (_, index) => cache.get(`${index}`)))
      await Promise.all(Array.from({ length: 500 }, (_, index) => handoff.getAndDelete(`${index}`)))
    }
  }
  await turn(60)
  const before = process.memoryUsage().rss
  await turn(Number(process.env.CLOAKROOM_ROUNDS ?? 200))
  expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20)
}, 600_000)
