import { expect, test, vi } from 'vitest'
import { Cloakroom, newEventId } from 'cloakroom'
import { binding, place, room, token } from './room.mjs'

test('a form token goes through once, then replays its result', async () => {
  const tokens = (await room()).formTokens()
  await tokens.insertFormToken(token('aa', { boundResource: 'order-7' }))
  const bound = { ...binding, boundResource: 'order-7' }
  expect(await tokens.consumeFormToken('aa', binding)).toEqual({ outcome: 'invalid', resultRef: null })
  expect(tokens.peekFormTokenSync('aa', bound).outcome).toBe('proceed')
  expect(await tokens.consumeFormTokenAny(['zz', 'aa'], bound)).toEqual({ outcome: 'proceed', resultRef: null })
  await tokens.setTokenResult('aa', 'receipt')
  expect(await tokens.consumeFormToken('aa', bound)).toEqual({ outcome: 'replay', resultRef: 'receipt' })
  await tokens.setTokenResultAny(['aa'], 'other')
  expect((await tokens.peekFormToken('aa', bound)).resultRef).toBe('other')
  expect((await tokens.consumeFormTokenAny([], bound)).outcome).toBe('invalid')
  await expect(tokens.insertFormToken(token('aa'))).rejects.toMatchObject({ code: 'ALREADY_EXISTS', name: 'AlreadyExistsError' })
  const { items, next } = await tokens.list()
  expect(next).toBe(null)
  expect(items).toMatchObject([{ record: { lookupKey: 'aa', subject: { authenticated: 'ann' } }, consumed: { resultRef: 'other' } }])
  expect(await tokens.stats()).toMatchObject({ live: 0, consumed: 1 })
})

test('a token of an anonymous visitor is not that of an empty id', async () => {
  const tokens = (await room()).formTokens()
  await tokens.insertFormToken(token('aa', { subject: 'anonymous' }))
  const as = async (subject) => (await tokens.consumeFormToken('aa', { subject, purpose: 'pay' })).outcome
  expect(await as({ authenticated: '' })).toBe('invalid')
  expect(await as({ flow: '' })).toBe('invalid')
  expect(await as('anonymous')).toBe('proceed')
})

test('a handoff state comes back equal, once', async () => {
  const handoff = (await room()).handoff()
  const state = { z: 1, a: [null, 1.1, 0.1 + 0.2, 'ü😀', { deep: true }], __proto: 'x' }
  await handoff.set('id', state, 60)
  expect(handoff.getSync('id')).toEqual(state)
  expect(Object.keys(await handoff.get('id'))).toEqual(['z', 'a', '__proto'])
  expect(await handoff.getAndDelete('id')).toEqual(state)
  expect(await handoff.getAndDelete('id')).toBe(null)
  await handoff.set('gone', state, 0)
  expect(await handoff.get('gone')).toBe(null)
})

test('a claim hides a state until it is released, and an ack deletes it', async () => {
  const handoff = (await room()).handoff()
  await handoff.setFor('id', { a: 1 }, 60_000)
  const first = await handoff.claim('id', 5_000)
  expect(first.state).toEqual({ a: 1 })
  expect(await handoff.claim('id', 5_000)).toBe(null)
  expect(await handoff.get('id')).toBe(null)
  expect(await handoff.extend(first.id, 9_000)).toBe(true)
  expect(await handoff.release(first.id)).toBe(true)
  const second = await handoff.claim('id', 5_000)
  expect(await handoff.ack(first.id)).toBe(false)
  expect(await handoff.ack(second.id)).toBe(true)
  expect(await handoff.get('id')).toBe(null)
  await expect(handoff.claim('id', 0)).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  await expect(handoff.ack('not a claim')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
})

test('a cache keeps values, tags and what is null apart from what is absent', async () => {
  const cache = (await room()).cache('http')
  await cache.set('a', { n: 1 }, 60)
  await cache.set('null', null, 0)
  expect(await cache.get('a')).toEqual({ n: 1 })
  expect(cache.getSync('null')).toBe(null)
  expect(await cache.get('absent')).toBe(undefined)
  await cache.set('a', 2, -1)
  expect(await cache.get('a')).toBe(undefined)
  cache.setWithTagsSync('t1', 1, 60, ['x', 'y'])
  await cache.setForWithTags('t2', 2, 'never', ['y'])
  expect(await cache.invalidateByTags(['x', 'y'])).toBe(2)
  await cache.set('user:1', 1, 60)
  await cache.set('other', 1, 60)
  await cache.clear('user:')
  expect((await cache.list()).items.map((entry) => entry.hash)).toEqual(['null', 'other'])
  expect(await cache.stats()).toMatchObject({ live: 2 })
})

test('a list goes on where its cursor stands', async () => {
  const cache = (await room()).cache('pages')
  for (const key of ['a', 'b', 'c']) cache.setSync(key, key, 0)
  const first = await cache.list({ limit: 2 })
  expect(first.items.map((entry) => entry.hash)).toEqual(['a', 'b'])
  const rest = await cache.list({ cursor: first.next })
  expect(rest.items.map((entry) => entry.hash)).toEqual(['c'])
  expect(rest.next).toBe(null)
  await expect(cache.list({ cursor: 'nonsense' })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
})

test('bytes are kept as bytes', async () => {
  const cache = (await room()).bytesCache('files')
  const all = Uint8Array.from({ length: 256 }, (_, index) => index)
  await cache.set('all', all, 60)
  await cache.set('part', all.subarray(10, 12), 60)
  await cache.set('none', new Uint8Array(), 60)
  expect(Buffer.compare(await cache.get('all'), all)).toBe(0)
  expect([...(await cache.get('part'))]).toEqual([10, 11])
  expect((await cache.get('none')).length).toBe(0)
  await expect(cache.set('text', 'text', 60)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
})

test('of those who join one job one owns it, and the others wait for its value', async () => {
  const jobs = (await room()).dedupe('http')
  const joined = await Promise.all(Array.from({ length: 20 }, () => jobs.registerOrJoin('k')))
  expect(joined.filter((one) => one.isOwner).length).toBe(1)
  expect(new Set(joined.map((one) => one.jobId)).size).toBe(1)
  const waiting = Promise.all([jobs.waitFor('k'), jobs.waitFor('k')])
  expect(jobs.isInProgressSync('k')).toBe(true)
  expect(await jobs.completeOwned('k', joined[0].jobId, { body: 1 })).toBe(true)
  expect(await waiting).toEqual([{ body: 1 }, { body: 1 }])
  expect(await jobs.failOwned('k', joined[0].jobId, 'late')).toBe(false)
  expect(await jobs.waitFor('unknown')).toBe(undefined)
  expect((await jobs.registerOrJoin('k')).isOwner).toBe(true)
  const failed = jobs.waitFor('k')
  await jobs.fail('k', 'no')
  expect(await failed).toBe(undefined)
  expect((await jobs.list()).items).toMatchObject([{ hash: 'k', state: 'failed' }])
})

test('a limiter admits exactly its limit', async () => {
  const limiter = (await room()).rateLimit('api', { limit: 3, window: 60_000 })
  const admitted = await Promise.all(Array.from({ length: 20 }, () => limiter.acquire('r')))
  expect(admitted.filter(Boolean).length).toBe(3)
  expect(limiter.canProceedSync('r')).toBe(false)
  expect(await limiter.status('r')).toMatchObject({ remaining: 0, limit: 3 })
  expect(await limiter.waitTime('r')).toBeGreaterThan(50_000)
  await limiter.setResourceConfig('r', { limit: 4, window: 60_000 })
  expect(await limiter.resourceConfig('r')).toEqual({ limit: 4, window: 60_000 })
  expect(limiter.acquireSync('r')).toBe(true)
  const until = Date.now() + 60_000
  await limiter.setCooldown('o', until)
  expect(await limiter.cooldown('o')).toBe(until)
  await limiter.clearCooldown('o')
  expect(await limiter.cooldown('o')).toBe(null)
  await limiter.reset('r')
  expect((await limiter.status('r')).remaining).toBe(4)
})

test('an adaptive limiter keeps the shares of users and background apart', async () => {
  const limiter = (await room()).adaptiveRateLimit('api', { limit: 10, window: 60_000 }, { minUserReserved: 4 })
  const status = await limiter.status('r')
  expect(status.userReserved + status.backgroundMax).toBe(10)
  const admitted = await Promise.all(Array.from({ length: 20 }, () => limiter.acquire('r', 'background')))
  expect(admitted.filter(Boolean).length).toBe(status.backgroundMax)
  expect(await limiter.acquire('r', 'user')).toBe(true)
  await expect(limiter.acquire('r', 'root')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
})

test('agent state is saved by expectation and read back as bytes', async () => {
  const state = (await room()).state()
  const identity = { tenant: 't', user: 'u', session: 's' }
  const first = { id: newEventId(), identity, kind: 'plan', version: -1, bytes: Buffer.from([0, 255]) }
  await state.saveIf([{ identity, kind: 'plan', expected: null }], first)
  await state.save(first)
  const loaded = await state.load(identity, 'plan')
  expect(loaded).toMatchObject({ id: first.id, identity: { ...identity, run: '' }, version: -1 })
  expect([...loaded.bytes]).toEqual([0, 255])
  expect(state.loadByEventIdSync(first.id).kind).toBe('plan')
  await expect(state.saveIf([{ identity, kind: 'plan', expected: null }], first)).rejects.toMatchObject({ code: 'CONDITION_FAILED', name: 'StateError' })
  await expect(state.save({ ...first, version: 2 })).rejects.toMatchObject({ code: 'IDEMPOTENCY_CONFLICT' })
  await expect(state.listKind({}, 'plan')).rejects.toMatchObject({ code: 'MAINTENANCE_SCOPE_REQUIRED' })
  expect((await state.listKind({ maintenance: true }, 'pl')).length).toBe(1)
  expect((await state.listKindForIdentity(identity, 'plan')).length).toBe(1)
  const page = await state.scanKindForTenant({ maintenance: true }, 't', 'plan', 10)
  expect(page.items.length).toBe(1)
  expect(await state.deleteIf({ identity, kind: 'plan', expected: 'other' })).toBe(false)
  expect(await state.deleteScope('t', 'u', 's')).toBe(1)
  await expect(state.load(identity, 'plan')).rejects.toMatchObject({ code: 'NOT_FOUND' })
})

test('what JSON cannot hold is refused and changes nothing', async () => {
  const opened = await room()
  const cache = opened.cache('c')
  await cache.set('k', 'before', 0)
  const loop = {}
  loop.self = loop
  for (const value of [NaN, { deep: [Infinity] }, undefined, 10n, loop, 'lone \ud800', { '\udc00': 1 }]) {
    await expect(cache.set('k', value, 0)).rejects.toMatchObject({ code: 'ENCODE', name: 'EncodeError' })
  }
  expect(await cache.get('k')).toBe('before')
  for (const value of ['null', 'a \\ud800 b', '\\', 'ü😀', { a: null }]) {
    await cache.set('k', value, 0)
    expect(await cache.get('k')).toEqual(value)
  }
  await expect(opened.handoff().set('k', [], 1)).rejects.toMatchObject({ code: 'ENCODE' })
})

test('keys with lone surrogates are refused, and others are kept apart', async () => {
  const cache = (await room()).cache('keys')
  await expect(cache.set('a\ud800', 1, 0)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', name: 'InvalidArgumentError' })
  expect(() => cache.getSync('\udfff')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  await cache.set('a\ufffd', 1, 0)
  await cache.set('', 2, 0)
  await cache.set('a\0b', 3, 0)
  expect([await cache.get('a\ufffd'), await cache.get(''), await cache.get('a\0b')]).toEqual([1, 2, 3])
  await expect(cache.set('k'.repeat(70_000), 1, 0)).rejects.toMatchObject({ code: 'TOO_LARGE', limit: expect.any(Number) })
})

test('wrong arguments reject and are no crash', async () => {
  const opened = await room()
  for (const wrong of [undefined, null, 1, {}, Symbol('s')]) {
    await expect(opened.cache('c').get(wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(opened.formTokens().consumeFormToken('k', wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(opened.state().save(wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  }
  for (const wrong of [-1, NaN, Infinity, '5', 2 ** 60]) {
    await expect(opened.handoff().setFor('k', {}, wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  }
  expect(() => opened.rateLimit('r', { limit: 1, window: 0 })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  expect(() => opened.cache('c', { durability: 'fast' })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  expect(() => new Cloakroom()).toThrow()
  await expect(Cloakroom.open('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  await expect(Cloakroom.open('/nonexistent/folder/x')).rejects.toMatchObject({ code: 'IO' })
})

test('a room whose clock is the host moves with fake timers', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval'] })
  try {
    const opened = await room({ clock: 'host' }, place())
    const cache = opened.cache('c')
    await cache.setFor('k', 1, 1_000)
    vi.setSystemTime(Date.now() + 999)
    expect(await cache.get('k')).toBe(1)
    vi.setSystemTime(Date.now() + 1)
    expect(await cache.get('k')).toBe(undefined)
    // Time passes without a call, too, while timers run.
    const jobs = opened.dedupe('d', { jobTimeout: 5_000 })
    await jobs.register('job')
    const waiting = jobs.waitFor('job')
    vi.advanceTimersByTime(6_000)
    expect(await waiting).toBe(undefined)
  } finally {
    vi.useRealTimers()
  }
})
