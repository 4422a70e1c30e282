import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Cloakroom, CloakroomError } from 'cloakroom'
import { binding, place, room, token } from './room.mjs'

test('both module systems give one package', () => {
  // In a process of its own, as the test runner loads modules in a way of its own.
  const text = `
    import { createRequire } from 'node:module'
    import { Cloakroom } from 'cloakroom'
    console.log(createRequire(import.meta.url)('cloakroom').Cloakroom === Cloakroom)`
  const cwd = new URL('..', import.meta.url)
  const answer = spawnSync(process.execPath, ['--input-type=module', '-e', text], { cwd, encoding: 'utf8' })
  expect(answer.stdout).toBe('true\n')
})

test('what was stored is there when the file is opened again', async () => {
  const path = place()
  const first = Cloakroom.openSync(path)
  const set = first.handoff().set('id', { a: 1 }, 60)
  first.closeSync()
  await set
  const second = await room({}, path)
  expect(await second.handoff().get('id')).toEqual({ a: 1 })
})

test('a close answers what was called before and refuses what comes after', async () => {
  const opened = await room()
  const handoff = opened.handoff()
  const before = Array.from({ length: 100 }, (_, index) => handoff.set(`${index}`, { index }, 60))
  const closed = opened.close()
  await expect(handoff.get('1')).rejects.toMatchObject({ code: 'CLOSED', name: 'ClosedError' })
  expect(() => opened.handoff()).toThrow(expect.objectContaining({ code: 'CLOSED' }))
  await expect(opened.atomically(() => 1)).rejects.toMatchObject({ code: 'CLOSED' })
  await expect(opened.stats()).rejects.toMatchObject({ code: 'CLOSED' })
  expect(() => opened.watch()).toThrow(expect.objectContaining({ code: 'CLOSED' }))
  await Promise.all([...before, closed, opened.close()])
  opened.closeSync()
  expect(opened.closed).toBe(true)
})

test('a waiter for a job is answered when the room closes', async () => {
  const opened = await room()
  const jobs = opened.dedupe('d')
  await jobs.register('job')
  const waiting = jobs.waitFor('job')
  opened.closeSync()
  expect(await waiting).toBe(undefined)
})

test('several opens share one room, and the last close closes it', async () => {
  const path = place()
  const [a, b] = await Promise.all([room({}, path), room({}, path)])
  const c = Cloakroom.openSync(path)
  await a.formTokens().insertFormToken(token('aa'))
  const answers = await Promise.all([a, b, c].map((one) => one.formTokens().consumeFormToken('aa', binding)))
  expect(answers.map((answer) => answer.outcome).sort()).toEqual(['proceed', 'replay', 'replay'])
  await a.close()
  await a.close()
  expect(await b.handoff().get('x')).toBe(null)
  await b.close()
  c.closeSync()
  const again = await room({}, path)
  expect((await again.formTokens().peekFormToken('aa', binding)).outcome).toBe('replay')
})

test('a room is disposed of with `await using`', async () => {
  const opened = await room()
  if (Symbol.asyncDispose) await opened[Symbol.asyncDispose]()
  else await opened.close()
  expect(opened.closed).toBe(true)
})

test('a file that is something else is refused and left alone', async () => {
  const path = place()
  writeFileSync(path, 'text'.repeat(10_000))
  const refusal = await Cloakroom.open(path).catch((error) => error)
  expect(refusal).toBeInstanceOf(CloakroomError)
  expect(refusal.code).toBe('NOT_CLOAKROOM')
  expect(readFileSync(path, 'utf8')).toBe('text'.repeat(10_000))
})

test('a transaction keeps all of it, or nothing', async () => {
  const opened = await room()
  await opened.formTokens().insertFormToken(token('aa'))
  const boom = new Error('boom')
  const attempt = opened.atomically((tx) => {
    expect(tx.formTokens().consumeFormToken('aa', binding).outcome).toBe('proceed')
    tx.cache('c').set('k', 1, 0)
    expect(tx.cache('c').get('k')).toBe(1)
    throw boom
  })
  await expect(attempt).rejects.toBe(boom)
  expect(await opened.cache('c').get('k')).toBe(undefined)
  const outcome = await opened.atomically((tx) => {
    const { outcome } = tx.formTokens().consumeFormToken('aa', binding)
    tx.formTokens().setTokenResult('aa', 'receipt')
    tx.handoff().set('h', { a: 1 }, 60)
    tx.bytesCache('b').set('k', new Uint8Array([1]), 0)
    tx.dedupe('d').complete('unknown', 1)
    tx.rateLimit('r', { limit: 1, window: 1000 }).acquire('x')
    tx.adaptiveRateLimit('a').record('x', 'user')
    return outcome
  })
  expect(outcome).toBe('proceed')
  expect((await opened.formTokens().consumeFormToken('aa', binding)).resultRef).toBe('receipt')
  expect(await opened.handoff().get('h')).toEqual({ a: 1 })
})

test('a transaction is synchronous, not nested, and ends with its function', async () => {
  const opened = await room()
  const other = await room()
  await expect(opened.atomically(async (tx) => tx.cache('c').set('k', 1, 0))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  expect(await opened.cache('c').get('k')).toBe(undefined)
  let kept
  await opened.atomically((tx) => void (kept = tx.cache('c')))
  expect(() => kept.set('k', 1, 0)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  const inner = await opened.atomically(() => {
    expect(() => opened.cache('c').setSync('k', 1, 0)).toThrow(expect.objectContaining({ code: 'NESTED_TRANSACTION' }))
    expect(() => opened.closeSync()).toThrow(expect.objectContaining({ code: 'NESTED_TRANSACTION' }))
    expect(() => Cloakroom.openSync(opened.path)).toThrow(expect.objectContaining({ code: 'NESTED_TRANSACTION' }))
    return { nested: opened.atomically(() => 1).catch((error) => error.code) }
  })
  expect(await inner.nested).toBe('NESTED_TRANSACTION')
  await opened.atomically((outer) => {
    const cache = outer.cache('c')
    const done = other.atomically(() => {
      expect(() => cache.set('k', 1, 0)).toThrow(expect.objectContaining({ code: 'FOREIGN_TRANSACTION' }))
    })
    cache.set('k', 2, 0)
    return { done }
  })
  expect(await opened.cache('c').get('k')).toBe(2)
})

test('a watch gives the changes in order and ends with its loop', async () => {
  const opened = await room()
  const watch = opened.watch({ store: 'handoff', prefix: 'a' })
  const handoff = opened.handoff()
  await Promise.all([handoff.set('a1', {}, 60), handoff.set('b1', {}, 60), handoff.set('a2', {}, 60)])
  await handoff.getAndDelete('a1')
  const seen = []
  for await (const change of watch) {
    seen.push([change.store, change.kind, change.key])
    if (seen.length === 3) break
  }
  expect(seen).toEqual([['handoff', 'put', 'a1'], ['handoff', 'put', 'a2'], ['handoff', 'removed', 'a1']])
  expect(await watch.next()).toEqual({ value: undefined, done: true })
})

test('a watch that waits ends when it is returned, and when the room closes', async () => {
  const opened = await room()
  const [first, second] = [opened.watch(), opened.watch()]
  const [ended, closed] = [first.next(), second.next()]
  await new Promise(setImmediate)
  await first.return()
  expect((await ended).done).toBe(true)
  await opened.close()
  expect((await closed).done).toBe(true)
})

test('a watch that falls behind says so and goes on', async () => {
  const opened = await room()
  const watch = opened.watch({ buffer: 4 })
  for (let index = 0; index < 50; index += 1) await opened.cache('c').set(`${index}`, 1, 0)
  let lagged = 0
  for (let index = 0; index < 10 && !lagged; index += 1) {
    await watch.next().catch((error) => (lagged += error.code === 'WATCH_LAGGED'))
  }
  expect(lagged).toBe(1)
  await opened.cache('c').set('last', 1, 0)
  for await (const change of watch) if (change.key === 'last') break
})

test('the upkeep of a room', async () => {
  const opened = await room()
  await opened.handoff().set('id', { a: 1 }, 60)
  await opened.handoff().set('old', { a: 1 }, 0)
  expect(await opened.verify()).toMatchObject({ ok: true, findings: [] })
  expect((await opened.sweep()).total).toBeTypeOf('number')
  await opened.checkpoint()
  expect((await opened.compact()).bytesAfter).toBeGreaterThan(0)
  const stats = await opened.stats()
  expect(stats.stores).toMatchObject([{ store: 'handoff', live: 1 }])
  expect(stats.sweepBacklog).toBeTypeOf('number')
  const copy = place('copy.cloak')
  expect((await opened.backup(copy)).rows).toBeGreaterThan(0)
  expect(await (await room({}, copy)).handoff().get('id')).toEqual({ a: 1 })
  const lines = place('lines.jsonl')
  await opened.export(lines)
  expect(readFileSync(lines, 'utf8')).toContain('"id"')
  await expect(opened.export(lines)).rejects.toMatchObject({ code: 'IO' })
  expect(existsSync(lines)).toBe(true)
})
