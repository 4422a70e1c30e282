'use strict'
// The public face: checks arguments, names the methods and makes the errors. The meaning of every
// call, and its declaration, stand in index.d.ts.

const { resolve } = require('node:path')
const native = require('./loader.js')

// ---- Errors ------------------------------------------------------------------------------------

class CloakroomError extends Error {
  constructor(code, message, data, options) {
    super(message, options)
    this.code = code
    this.data = data ?? {}
  }
}
const errors = { CloakroomError }
const classOfCode = new Map()
/** A class whose instances have the members of their data as their own. */
function defineError(name, codes) {
  errors[name] = {
    [name]: class extends CloakroomError {
      constructor(code, message, data, options) {
        super(code, message, data, options)
        Object.assign(this, data)
      }
    },
  }[name]
  for (const code of codes) classOfCode.set(code, errors[name])
}
defineError('LogFullError', ['LOG_FULL'])
defineError('TooLargeError', ['TOO_LARGE'])
defineError('AlreadyExistsError', ['ALREADY_EXISTS'])
defineError('EncodeError', ['ENCODE'])
defineError('InvalidConfigError', ['INVALID_CONFIG'])
defineError('InvalidArgumentError', ['INVALID_ARGUMENT'])
defineError('ClosedError', ['CLOSED'])
defineError('LockedError', ['LOCKED'])
defineError('CorruptedError', ['CORRUPTED'])
defineError('OutcomeUnknownError', ['OUTCOME_UNKNOWN'])
defineError('PoisonedError', ['POISONED'])
defineError('StateError', ['IDENTITY_REQUIRED', 'INVALID_RECORD', 'NOT_FOUND', 'IDEMPOTENCY_CONFLICT',
  'MAINTENANCE_SCOPE_REQUIRED', 'CONDITION_FAILED', 'INVALID_SCAN'])
for (const type of Object.values(errors)) Object.defineProperty(type.prototype, 'name', { value: type.name })

function makeError(code, message, data) {
  return new (classOfCode.get(code) ?? CloakroomError)(code, message, JSON.parse(data) ?? undefined)
}
const invalid = (message) => new errors.InvalidArgumentError('INVALID_ARGUMENT', message)

const binding = new native.Binding(makeError, JSON.parse, () => Date.now())

// ---- Arguments ---------------------------------------------------------------------------------

function text(value, what) {
  if (typeof value !== 'string') throw invalid(`${what} must be a string`)
  if (!value.isWellFormed()) throw invalid(`${what} has a lone surrogate, which has no UTF-8 form`)
  return value
}
const optionalText = (value, what) => (value == null ? undefined : text(value, what))
function texts(values, what) {
  if (!Array.isArray(values)) throw invalid(`${what} must be an array of strings`)
  return values.map((value) => text(value, what))
}
/** A number that is not negative; infinity and NaN are neither a time nor a count. */
function amount(value, what) {
  if (typeof value !== 'number' || !(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) {
    throw invalid(`${what} must be a number from 0 to 2^53 - 1`)
  }
  return value
}
const optionalAmount = (value, what) => (value == null ? undefined : amount(value, what))
function count(value, what) {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw invalid(`${what} must be a whole number from 0 to 2^32 - 1`)
  }
  return value
}
function whole(value, what) {
  if (!Number.isSafeInteger(value)) throw invalid(`${what} must be a safe integer`)
  return value
}
function bytes(value, what) {
  if (!(value instanceof Uint8Array)) throw invalid(`${what} must be a Uint8Array`)
  return value
}
function object(value, what) {
  if (value === null || typeof value !== 'object') throw invalid(`${what} must be an object`)
  return value
}
/** The native form: 0 is sync, -1 os, else an interval in milliseconds. */
function durability(value) {
  if (value === undefined) return undefined
  if (value === 'sync') return 0
  if (value === 'os') return -1
  const interval = value?.interval
  if (typeof interval === 'number' && interval > 0) return interval
  throw invalid("durability must be 'sync', 'os' or { interval: milliseconds }")
}
function replacer(key, value) {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw new errors.EncodeError('ENCODE', `JSON has no form of the number ${value}`)
  }
  return value
}
/** The value in JSON. What would come back as another value is refused, never changed. */
function json(value) {
  let encoded
  try {
    encoded = JSON.stringify(value)
    // A number that is not finite was written as `null`. The second look is paid for by those only
    // whose text has one.
    if (encoded?.includes('null')) JSON.stringify(value, replacer)
  } catch (cause) {
    if (cause instanceof CloakroomError) throw cause
    throw new errors.EncodeError('ENCODE', `the value has no form in JSON: ${cause?.message ?? cause}`, undefined, { cause })
  }
  if (encoded === undefined) throw new errors.EncodeError('ENCODE', `JSON has no form of ${typeof value}`)
  // `JSON.stringify` writes a lone surrogate as an escape, which UTF-8 cannot hold either.
  if (encoded.includes('\\ud') && /(^|[^\\])(\\\\)*\\ud[89a-f]/.test(encoded)) {
    throw new errors.EncodeError('ENCODE', 'a string has a lone surrogate, which has no UTF-8 form')
  }
  return encoded
}
function subject(value) {
  if (value === 'anonymous') return [0, '']
  if (typeof value?.authenticated === 'string') return [1, text(value.authenticated, 'subject')]
  if (typeof value?.flow === 'string') return [2, text(value.flow, 'subject')]
  throw invalid("subject must be 'anonymous', { authenticated: id } or { flow: id }")
}
function tokenBinding(value) {
  object(value, 'binding')
  const now = value.now === undefined ? Math.floor(Date.now() / 1000) : amount(value.now, 'now')
  const resource = optionalText(value.boundResource, 'boundResource')
  return [...subject(value.subject), text(value.purpose, 'purpose'), resource, now]
}
function identity(value) {
  object(value, 'identity')
  const { tenant, user, session, run = '' } = value
  return { tenant: text(tenant, 'tenant'), user: text(user, 'user'), session: text(session, 'session'), run: text(run, 'run') }
}
function stateRecord(value) {
  object(value, 'record')
  return {
    id: text(value.id, 'id'), identity: identity(value.identity), kind: text(value.kind, 'kind'),
    version: whole(value.version ?? 0, 'version'), bytes: bytes(value.bytes, 'bytes'),
    updatedAt: optionalAmount(value.updatedAt, 'updatedAt'),
  }
}
function expectation(value) {
  object(value, 'expectation')
  if (value.expected === undefined) throw invalid('expected must be an event id, or null for an absent slot')
  return { identity: identity(value.identity), kind: text(value.kind, 'kind'), expected: optionalText(value.expected, 'expected') }
}
function array(values, each, what) {
  if (!Array.isArray(values)) throw invalid(`${what} must be an array`)
  return values.map(each)
}
const maintenance = (scope) => scope?.maintenance === true
/** Whole seconds as `set` takes them, in the native form: absent is never, 0 has ended. */
function secondsOrNever(seconds) {
  whole(seconds, 'ttlSeconds')
  return seconds === 0 ? undefined : Math.min(Math.max(seconds, 0) * 1000, Number.MAX_SAFE_INTEGER)
}
const msOrNever = (ttl) => (ttl === 'never' ? undefined : amount(ttl, 'ttlMs'))
function seconds(value) {
  return Math.min(amount(whole(value, 'ttlSeconds'), 'ttlSeconds') * 1000, Number.MAX_SAFE_INTEGER)
}
function config(value) {
  object(value, 'config')
  return [amount(value.limit, 'limit'), amount(value.window, 'window')]
}
function isUser(priority = 'background') {
  if (priority === 'user') return true
  if (priority === 'background') return false
  throw invalid("priority must be 'user' or 'background'")
}

// ---- Stores ------------------------------------------------------------------------------------

const PROMISE = 0, SYNC = 1, WITHIN = 2

const formTokens = {
  insertFormToken(n, m, record) {
    object(record, 'record')
    const [subjectKind, subjectId] = subject(record.subject)
    return n.insert(m, {
      lookupKey: text(record.lookupKey, 'lookupKey'), keyVersion: text(record.keyVersion ?? '', 'keyVersion'),
      subjectKind, subjectId, purpose: text(record.purpose, 'purpose'),
      boundResource: optionalText(record.boundResource, 'boundResource'),
      issuedAt: amount(record.issuedAt ?? 0, 'issuedAt'), expiresAt: amount(record.expiresAt, 'expiresAt'),
    })
  },
  consumeFormToken: (n, m, key, binding) => n.consume(m, text(key, 'lookupKey'), ...tokenBinding(binding)),
  consumeFormTokenAny: (n, m, keys, binding) => n.consumeAny(m, texts(keys, 'candidates'), ...tokenBinding(binding)),
  peekFormToken: (n, m, key, binding) => n.peek(m, text(key, 'lookupKey'), ...tokenBinding(binding)),
  setTokenResult: (n, m, key, result) => n.setResult(m, text(key, 'lookupKey'), text(result, 'resultRef')),
  setTokenResultAny: (n, m, keys, result) => n.setResultAny(m, texts(keys, 'candidates'), text(result, 'resultRef')),
}
function jsonObject(value) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new errors.EncodeError('ENCODE', 'a state must be an object')
  }
  return json(value)
}
const handoff = {
  set: (n, m, id, state, ttl) => n.set(m, text(id, 'stateId'), jsonObject(state), seconds(ttl)),
  setFor: (n, m, id, state, ms) => n.set(m, text(id, 'stateId'), jsonObject(state), amount(ms, 'ttlMs')),
  get: (n, m, id) => n.get(m, text(id, 'stateId')),
  getAndDelete: (n, m, id) => n.getAndDelete(m, text(id, 'stateId')),
  delete: (n, m, id) => n.delete(m, text(id, 'stateId')),
  claim: (n, m, id, lease) => n.claim(m, text(id, 'stateId'), amount(lease, 'leaseMs')),
  ack: (n, m, claim) => n.ack(m, text(claim, 'claimId')),
  release: (n, m, claim) => n.release(m, text(claim, 'claimId')),
  extend: (n, m, claim, lease) => n.extend(m, text(claim, 'claimId'), amount(lease, 'leaseMs')),
}
const cacheOf = (encode) => ({
  get: (n, m, hash) => n.get(m, text(hash, 'hash')),
  set: (n, m, hash, value, ttl) => n.set(m, text(hash, 'hash'), encode(value), secondsOrNever(ttl)),
  setFor: (n, m, hash, value, ttl) => n.set(m, text(hash, 'hash'), encode(value), msOrNever(ttl)),
  setWithTags: (n, m, hash, value, ttl, tags) =>
    n.setWithTags(m, text(hash, 'hash'), encode(value), secondsOrNever(ttl), texts(tags, 'tags')),
  setForWithTags: (n, m, hash, value, ttl, tags) =>
    n.setWithTags(m, text(hash, 'hash'), encode(value), msOrNever(ttl), texts(tags, 'tags')),
  delete: (n, m, hash) => n.delete(m, text(hash, 'hash')),
  clear: (n, m, scope) => n.clear(m, optionalText(scope, 'scope')),
  invalidateByTag: (n, m, tag) => n.invalidate(m, [text(tag, 'tag')]),
  invalidateByTags: (n, m, tags) => n.invalidate(m, texts(tags, 'tags')),
})
const jsonCache = cacheOf(json)
const bytesCache = cacheOf((value) => bytes(value, 'value'))
const dedupe = {
  register: (n, m, hash) => n.register(m, text(hash, 'hash')),
  registerOrJoin: (n, m, hash) => n.registerOrJoin(m, text(hash, 'hash')),
  complete: (n, m, hash, value) => n.complete(m, text(hash, 'hash'), json(value)),
  fail: (n, m, hash, error) => n.fail(m, text(hash, 'hash'), text(error, 'error')),
  isInProgress: (n, m, hash) => n.isInProgress(m, text(hash, 'hash')),
  clear: (n, m, scope) => n.clear(m, optionalText(scope, 'scope')),
  completeOwned: (n, m, hash, job, value) => n.completeOwned(m, text(hash, 'hash'), text(job, 'jobId'), json(value)),
  failOwned: (n, m, hash, job, error) => n.failOwned(m, text(hash, 'hash'), text(job, 'jobId'), text(error, 'error')),
}
const resource = (value) => text(value, 'resource')
const rateLimitOf = (acquire) => ({
  ...acquire,
  status: (n, m, name) => n.status(m, resource(name)),
  reset: (n, m, name) => n.reset(m, resource(name)),
  setResourceConfig: (n, m, name, value) => n.setResourceConfig(m, resource(name), ...config(value)),
  resourceConfig: (n, m, name) => n.resourceConfig(m, resource(name)),
  setCooldown: (n, m, origin, until) => n.setCooldown(m, text(origin, 'origin'), amount(until, 'until')),
  cooldown: (n, m, origin) => n.cooldown(m, text(origin, 'origin')),
  clearCooldown: (n, m, origin) => n.clearCooldown(m, text(origin, 'origin')),
  clear: (n, m) => n.clear(m),
})
const rateLimit = rateLimitOf({
  acquire: (n, m, name) => n.acquire(m, resource(name)),
  canProceed: (n, m, name) => n.canProceed(m, resource(name)),
  record: (n, m, name) => n.record(m, resource(name)),
  waitTime: (n, m, name) => n.waitTime(m, resource(name)),
})
const adaptiveRateLimit = rateLimitOf({
  acquire: (n, m, name, priority) => n.acquire(m, resource(name), isUser(priority)),
  canProceed: (n, m, name, priority) => n.canProceed(m, resource(name), isUser(priority)),
  record: (n, m, name, priority) => n.record(m, resource(name), isUser(priority)),
  waitTime: (n, m, name, priority) => n.waitTime(m, resource(name), isUser(priority)),
})
const state = {
  save: (n, m, record) => n.save(m, stateRecord(record)),
  load: (n, m, id, kind) => n.load(m, identity(id), text(kind, 'kind')),
  loadByEventId: (n, m, id) => n.loadByEventId(m, text(id, 'eventId')),
  delete: (n, m, id, kind) => n.delete(m, identity(id), text(kind, 'kind')),
  listKind: (n, m, scope, prefix) => n.listKind(m, maintenance(scope), text(prefix, 'kindPrefix')),
  listKindBounded: (n, m, scope, prefix, limit) =>
    n.listKindBounded(m, maintenance(scope), text(prefix, 'kindPrefix'), count(limit, 'limit')),
  saveIf: (n, m, expected, next) => n.saveIf(m, array(expected, expectation, 'expectations'), stateRecord(next)),
  saveBatchIf: (n, m, expected, writes) =>
    n.saveBatchIf(m, array(expected, expectation, 'expectations'), array(writes, stateRecord, 'writes')),
  deleteIf: (n, m, expected) => n.deleteIf(m, expectation(expected)),
  deleteScope: (n, m, tenant, user, session) =>
    n.deleteScope(m, text(tenant, 'tenant'), text(user, 'user'), text(session, 'session')),
  listKindForIdentity: (n, m, id, prefix, limit) => n.listKindForIdentity(
    m, identity(id), text(prefix, 'kindPrefix'), limit == null ? undefined : count(limit, 'limit')),
  scanKindForTenant: (n, m, scope, tenant, prefix, limit, cursor) => n.scanKindForTenant(
    m, maintenance(scope), text(tenant, 'tenant'), text(prefix, 'kindPrefix'), count(limit, 'limit'), optionalText(cursor, 'cursor')),
}

const NATIVE = Symbol('native')

class Store {
  constructor(handle) {
    Object.defineProperty(this, NATIVE, { value: handle })
  }
}

function method(type, name, call) {
  Object.defineProperty(type.prototype, name, { value: call, writable: true, configurable: true })
}
/** A method that answers a promise; a wrong argument rejects it. */
function promised(call) {
  return function (a, b, c, d, e) {
    try {
      return call(this[NATIVE], PROMISE, a, b, c, d, e)
    } catch (error) {
      return Promise.reject(error)
    }
  }
}
function direct(call, mode) {
  return function (a, b, c, d, e) {
    return call(this[NATIVE], mode, a, b, c, d, e)
  }
}
/** The class of a store, and the class of its view in a transaction. */
function defineStore(name, calls, synced, more = {}) {
  const type = { [name]: class extends Store {} }[name]
  const view = { [`${name}Tx`]: class extends Store {} }[`${name}Tx`]
  for (const [key, call] of Object.entries(calls)) {
    method(type, key, promised(call))
    method(view, key, direct(call, WITHIN))
  }
  for (const key of synced) method(type, `${key}Sync`, direct(calls[key], SYNC))
  const listed = (n, _, options) =>
    n.list(optionalText(options?.cursor, 'cursor'), count(options?.limit ?? 100, 'limit'))
  for (const [key, call] of Object.entries({ ...more, list: listed, stats: (n) => n.stats() })) {
    method(type, key, promised(call))
  }
  return [type, view]
}
const STORES = {
  formTokens: defineStore('FormTokens', formTokens, ['peekFormToken']),
  handoff: defineStore('Handoff', handoff, ['get']),
  cache: defineStore('Cache', jsonCache, Object.keys(jsonCache)),
  bytesCache: defineStore('Cache', bytesCache, Object.keys(bytesCache)),
  dedupe: defineStore('Dedupe', dedupe, Object.keys(dedupe), { waitFor: (n, _, hash) => n.waitFor(text(hash, 'hash')) }),
  rateLimit: defineStore('RateLimit', rateLimit, Object.keys(rateLimit)),
  adaptiveRateLimit: defineStore('AdaptiveRateLimit', adaptiveRateLimit, Object.keys(adaptiveRateLimit)),
  state: defineStore('State', state, ['load', 'loadByEventId']),
}
function cacheOptions(options = {}) {
  return {
    durability: durability(options.durability), maxEntryBytes: optionalAmount(options.maxEntryBytes, 'maxEntryBytes'),
    maxEntries: optionalAmount(options.maxEntries, 'maxEntries'), maxBytes: optionalAmount(options.maxBytes, 'maxBytes'),
  }
}
const OPENERS = {
  formTokens: (n, o = {}) => n.formTokens(durability(o.durability), optionalAmount(o.replayGrace, 'replayGrace')),
  handoff: (n, o = {}) => n.handoff(durability(o.durability), optionalAmount(o.maxStateBytes, 'maxStateBytes')),
  cache: (n, name, options) => n.cache(text(name, 'name'), cacheOptions(options)),
  bytesCache: (n, name, options) => n.bytesCache(text(name, 'name'), cacheOptions(options)),
  dedupe: (n, name, o = {}) =>
    n.dedupe(text(name, 'name'), durability(o.durability), optionalAmount(o.jobTimeout, 'jobTimeout')),
  rateLimit: (n, name, value, o = {}) => n.rateLimit(text(name, 'name'), ...config(value), durability(o.durability)),
  adaptiveRateLimit: (n, name, value, adaptive = {}, o = {}) => n.adaptiveRateLimit(
    text(name, 'name'), ...(value === undefined ? [undefined, undefined] : config(value)), adaptive, durability(o.durability)),
  state: (n, o = {}) => n.state(durability(o.durability), optionalAmount(o.lateWindow, 'lateWindow')),
}

class Transaction {
  constructor(handle) {
    Object.defineProperty(this, NATIVE, { value: handle })
  }
}

// ---- Watching ----------------------------------------------------------------------------------

class Watch {
  #native
  #last = Promise.resolve()
  constructor(handle) {
    this.#native = handle
  }
  next() {
    // One after the other: each change goes to one caller, in order.
    const next = this.#last.then(() => this.#native.next())
    this.#last = next.catch(() => {})
    return next.then((value) => (value === undefined ? { value, done: true } : { value, done: false }))
  }
  return() {
    this.#native.end()
    return Promise.resolve({ value: undefined, done: true })
  }
  [Symbol.asyncIterator]() {
    return this
  }
}

// ---- The room ----------------------------------------------------------------------------------

function openOptions(options = {}) {
  object(options, 'options')
  const clock = options.clock ?? 'system'
  if (clock !== 'system' && clock !== 'host') throw invalid("clock must be 'system' or 'host'")
  const sweep = options.sweepInterval
  return {
    durability: durability(options.durability) ?? 0,
    logCapacity: optionalAmount(options.logCapacity, 'logCapacity'),
    cacheSize: optionalAmount(options.cacheSize, 'cacheSize'),
    sweepInterval: sweep === null ? -1 : optionalAmount(sweep, 'sweepInterval'),
    lockTimeout: optionalAmount(options.lockTimeout, 'lockTimeout'),
    logStall: optionalAmount(options.logStall, 'logStall'),
    readOnly: options.readOnly === true,
    hostNow: clock === 'host' ? Date.now() : undefined,
  }
}
function openPath(path) {
  if (text(path, 'path') === '') throw invalid('path is empty')
  if (path.includes('\0')) throw invalid('path has a null byte')
  return path === ':memory:' ? path : resolve(path)
}
const camel = (value) => {
  if (Array.isArray(value)) return value.map(camel)
  if (value === null || typeof value !== 'object') return value
  const named = ([key, member]) => [key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase()), camel(member)]
  return Object.fromEntries(Object.entries(value).map(named))
}
const CONSTRUCT = Symbol('construct')

class Cloakroom {
  #timer
  constructor(token, handle, path, options) {
    if (token !== CONSTRUCT) throw invalid('use Cloakroom.open or Cloakroom.openSync')
    Object.defineProperty(this, NATIVE, { value: handle })
    Object.defineProperty(this, 'path', { value: path, enumerable: true })
    if (options.hostNow !== undefined) {
      // The handle is held weakly, so that a room that nobody closes can still be collected.
      const weak = new WeakRef(handle)
      this.#timer = setInterval(() => weak.deref()?.tick(), 1000)
      this.#timer.unref?.()
    }
  }
  static async open(path, options) {
    const [place, filled] = [openPath(path), openOptions(options)]
    return new Cloakroom(CONSTRUCT, await binding.open(place, filled), place, filled)
  }
  static openSync(path, options) {
    const [place, filled] = [openPath(path), openOptions(options)]
    return new Cloakroom(CONSTRUCT, binding.openSync(place, filled), place, filled)
  }
  get closed() {
    return this[NATIVE].closed
  }
  close() {
    clearInterval(this.#timer)
    return this[NATIVE].close()
  }
  closeSync() {
    this[NATIVE].closeSync()
    clearInterval(this.#timer)
  }
  atomically(fn) {
    if (typeof fn !== 'function') return Promise.reject(invalid('atomically takes a function'))
    let result, thrown, hasThrown = false
    const done = this[NATIVE].atomically(() => {
      try {
        result = fn(new Transaction(this[NATIVE]))
        if (typeof result?.then !== 'function') return true
        // Its rejection belongs to nobody any more.
        Promise.resolve(result).catch(() => {})
        thrown = invalid('the function of a transaction must be synchronous; it was rolled back')
      } catch (error) {
        thrown = error
      }
      hasThrown = true
      return false
    })
    return done.then(
      () => result,
      (error) => {
        throw hasThrown ? thrown : error
      },
    )
  }
  watch(filter = {}) {
    object(filter, 'filter')
    return new Watch(this[NATIVE].watch({
      store: optionalText(filter.store, 'store'), name: optionalText(filter.name, 'name'),
      prefix: optionalText(filter.prefix, 'prefix'), tenant: optionalText(filter.tenant, 'tenant'),
      buffer: filter.buffer === undefined ? undefined : count(filter.buffer, 'buffer'),
    }))
  }
  async stats() {
    return camel(await this[NATIVE].stats())
  }
  verify() {
    return this[NATIVE].verify()
  }
  async backup(path) {
    return this[NATIVE].backup(openPath(path))
  }
  sweep() {
    return this[NATIVE].sweep()
  }
  checkpoint() {
    return this[NATIVE].checkpoint()
  }
  compact() {
    return this[NATIVE].compact()
  }
  async export(path) {
    return this[NATIVE].export(openPath(path))
  }
}
for (const [name, [type, view]] of Object.entries(STORES)) {
  method(Cloakroom, name, function (...given) {
    return new type(OPENERS[name](this[NATIVE], ...given))
  })
  method(Transaction, name, function (...given) {
    return new view(OPENERS[name](this[NATIVE], ...given))
  })
}
// Node 20 has the symbol; others may not.
if (Symbol.asyncDispose) method(Cloakroom, Symbol.asyncDispose, Cloakroom.prototype.close)

module.exports = { Cloakroom, ...errors, newEventId: () => binding.newEventId() }
