/**
 * Storage for what is handed over once: form tokens, claim checks, cached responses, in-flight
 * jobs, rate-limit windows and agent state, in one file.
 *
 * Units: spans of time are milliseconds, unless a name ends in `Seconds`. Points in time are Unix
 * milliseconds, unless a name or its comment says seconds (form tokens speak of seconds).
 *
 * Order: a call has taken its effect when it returns. The promise is the wait for the disk, so a
 * thousand calls may be issued first and awaited together; they share one flush.
 *
 * Strings (keys, names, tags) must be well-formed Unicode. One with a lone surrogate is refused
 * with an `InvalidArgumentError`, because it has no UTF-8 form of its own.
 */

/** What a write waits for. */
export type Durability =
  /** The promise resolves when the disk has the change. */
  | 'sync'
  /** Survives a crash of the process at once, of the machine after at most `interval` ms. */
  | { interval: number }
  /** Survives a crash of the process. */
  | 'os';

export interface OpenOptions {
  /** Of form tokens, handoff and state. Default `'sync'`. The other stores default to `'os'`. */
  durability?: Durability;
  /** Bytes set aside for the log. */
  logCapacity?: number;
  /** Bytes of page cache. */
  cacheSize?: number;
  /** Milliseconds between two runs of the sweeper; `null` sweeps only when asked. Default 30 000. */
  sweepInterval?: number | null;
  /** Milliseconds to wait for a file that another process has open. Default 0. */
  lockTimeout?: number;
  /** Milliseconds a blocking wait may wait for space in the log before it fails with `LOG_FULL`. */
  logStall?: number;
  /** Open for reading only. */
  readOnly?: boolean;
  /**
   * `'system'` (default), or `'host'`: every call takes `Date.now()` as the time, so that fake
   * timers move the store as well. Time then passes only when the program calls the store, or
   * once a second while the event loop runs.
   */
  clock?: 'system' | 'host';
}

/** A page of a listing; pass `next` to get the page after it. `null` after the last. */
export interface Page<T> { items: T[]; next: string | null }
export interface ListOptions { cursor?: string | null; /** Default 100. */ limit?: number }

/** A value that JSON can hold. `undefined` members are dropped, as `JSON.stringify` does. */
export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };
export type JsonObject = { [key: string]: JsonValue };

// ---------------------------------------------------------------------------------------------
// Errors

/** Base of all errors of this package. `code` is stable, `message` is not. */
export class CloakroomError extends Error { readonly code: ErrorCode; readonly data: Record<string, unknown> }
/** The log is full. `isApplied` says whether the change was made: then do not repeat it. */
export class LogFullError extends CloakroomError {
  readonly code: 'LOG_FULL';
  /** Milliseconds. */ readonly retryAfter: number;
  /** Milliseconds. */ readonly waited: number;
  readonly isApplied: boolean;
}
export class TooLargeError extends CloakroomError { readonly code: 'TOO_LARGE'; readonly size: number; readonly limit: number }
export class AlreadyExistsError extends CloakroomError { readonly code: 'ALREADY_EXISTS' }
/** The value cannot be encoded (a number that is not finite, a cycle, a BigInt); nothing changed. */
export class EncodeError extends CloakroomError { readonly code: 'ENCODE' }
export class InvalidConfigError extends CloakroomError { readonly code: 'INVALID_CONFIG' }
/** An argument has the wrong type or is out of range, or a string is not well-formed. */
export class InvalidArgumentError extends CloakroomError { readonly code: 'INVALID_ARGUMENT' }
/** The room or this handle was closed before the call. */
export class ClosedError extends CloakroomError { readonly code: 'CLOSED' }
/** Another process has the file open. */
export class LockedError extends CloakroomError { readonly code: 'LOCKED'; readonly path: string }
export class CorruptedError extends CloakroomError { readonly code: 'CORRUPTED'; readonly location: string; readonly detail: string }
/** The disk failed while the write was in flight: it may or may not survive. */
export class OutcomeUnknownError extends CloakroomError { readonly code: 'OUTCOME_UNKNOWN' }
/** An earlier write failed; the room accepts no more of them. */
export class PoisonedError extends CloakroomError { readonly code: 'POISONED' }
/** A state operation was refused. */
export class StateError extends CloakroomError {
  readonly code: 'IDENTITY_REQUIRED' | 'INVALID_RECORD' | 'NOT_FOUND' | 'IDEMPOTENCY_CONFLICT'
    | 'MAINTENANCE_SCOPE_REQUIRED' | 'CONDITION_FAILED' | 'INVALID_SCAN';
}
export type ErrorCode =
  | 'LOCKED' | 'NOT_CLOAKROOM' | 'DIFFERENT_ROOM' | 'UNSUPPORTED_VERSION' | 'OUTDATED_VERSION'
  | 'VERSION_TOO_OLD' | 'CORRUPTED' | 'IO' | 'DISK_FULL' | 'LOG_FULL' | 'UNLINKED' | 'FORKED'
  | 'TOO_LARGE' | 'ALREADY_EXISTS' | 'NOT_EMPTY' | 'IMPORT' | 'INVALID_CONFIG' | 'ENCODE'
  | 'OUTCOME_UNKNOWN' | 'POISONED' | 'UNANSWERED' | 'CLOSED' | 'READ_ONLY' | 'NESTED_TRANSACTION'
  | 'FOREIGN_TRANSACTION' | 'INVALID_ARGUMENT' | 'IDENTITY_REQUIRED' | 'INVALID_RECORD'
  | 'NOT_FOUND' | 'IDEMPOTENCY_CONFLICT' | 'MAINTENANCE_SCOPE_REQUIRED' | 'CONDITION_FAILED'
  | 'INVALID_SCAN' | 'WATCH_LAGGED' | 'UNKNOWN';

// ---------------------------------------------------------------------------------------------
// Form tokens

/** `'anonymous'` never equals an empty authenticated id. */
export type TokenSubject = 'anonymous' | { authenticated: string } | { flow: string };

export interface FormTokenRecord {
  /** A keyed hash in lowercase hex; opaque to the store. */
  lookupKey: string;
  keyVersion?: string;
  subject: TokenSubject;
  purpose: string;
  boundResource?: string | null;
  /** Unix seconds. */ issuedAt?: number;
  /** Unix seconds. */ expiresAt: number;
}
export interface TokenBinding {
  subject: TokenSubject;
  purpose: string;
  boundResource?: string | null;
  /** Unix seconds. Default: `Math.floor(Date.now() / 1000)`. */
  now?: number;
}
/** `resultRef` is what `setTokenResult` stored last, and only on a replay. */
export interface TokenAnswer { outcome: 'proceed' | 'replay' | 'invalid'; resultRef: string | null }
export interface FormTokenEntry {
  record: Required<FormTokenRecord>;
  consumed: { /** Unix seconds. */ consumedAt: number; resultRef: string | null } | null;
}
export interface FormTokenStats { live: number; consumed: number; expired: number; bytes: number }

export interface FormTokensTx {
  insertFormToken(record: FormTokenRecord): void;
  /** Of all callers with the right binding exactly one ever gets `'proceed'`. */
  consumeFormToken(lookupKey: string, binding: TokenBinding): TokenAnswer;
  /** The first candidate that exists decides. For key rotation. */
  consumeFormTokenAny(candidates: string[], binding: TokenBinding): TokenAnswer;
  /** What a consume would answer. Changes nothing. */
  peekFormToken(lookupKey: string, binding: TokenBinding): TokenAnswer;
  setTokenResult(lookupKey: string, resultRef: string): void;
  setTokenResultAny(candidates: string[], resultRef: string): void;
}
export interface FormTokens extends Promised<FormTokensTx> {
  peekFormTokenSync(lookupKey: string, binding: TokenBinding): TokenAnswer;
  list(options?: ListOptions): Promise<Page<FormTokenEntry>>;
  stats(): Promise<FormTokenStats>;
}
export interface FormTokensOptions { durability?: Durability; /** Milliseconds. Default 24 h. */ replayGrace?: number }

// ---------------------------------------------------------------------------------------------
// Handoff (claim check)

/** `id` is passed to `ack`, `release` and `extend`. */
export interface Claim<T = JsonObject> { state: T; id: string }
export interface HandoffEntry { stateId: string; expiresAtMs: number; bytes: number; claimedUntilMs: number | null }
export interface HandoffStats { live: number; claimed: number; expired: number; bytes: number }

export interface HandoffTx<T extends object = JsonObject> {
  /** Overwrites, with a new TTL. A TTL of 0 has expired at once. Whole seconds. */
  set(stateId: string, state: T, ttlSeconds: number): void;
  /** As `set`, with a span in milliseconds. */
  setFor(stateId: string, state: T, ttlMs: number): void;
  get(stateId: string): T | null;
  /** Of all concurrent callers exactly one gets the state. */
  getAndDelete(stateId: string): T | null;
  delete(stateId: string): void;
  /** Hides the state from others for the lease (milliseconds). Not acked, it comes back. */
  claim(stateId: string, leaseMs: number): Claim<T> | null;
  ack(claimId: string): boolean;
  release(claimId: string): boolean;
  extend(claimId: string, leaseMs: number): boolean;
}
export interface Handoff<T extends object = JsonObject> extends Promised<HandoffTx<T>> {
  getSync(stateId: string): T | null;
  list(options?: ListOptions): Promise<Page<HandoffEntry>>;
  stats(): Promise<HandoffStats>;
}
export interface HandoffOptions { durability?: Durability; /** Encoded bytes. Default 4 MiB. */ maxStateBytes?: number }

// ---------------------------------------------------------------------------------------------
// Cache

export interface CacheEntry { hash: string; createdAtMs: number; expiresAtMs: number | null; bytes: number; tags: string[] }
export interface CacheStats {
  live: number; expired: number; bytes: number; hits: number; misses: number; evictions: number; oversized: number;
}
export interface CacheTx<T> {
  /** `undefined` when absent or expired (a stored `null` is `null`). */
  get(hash: string): T | undefined;
  /** Whole seconds: > 0 expires after that many, 0 never, < 0 at once. Tags are left as they are. */
  set(hash: string, value: T, ttlSeconds: number): void;
  /** Milliseconds, `0` is expired at once; `'never'`. */
  setFor(hash: string, value: T, ttlMs: number | 'never'): void;
  delete(hash: string): void;
  /** All, or only keys that start with `scope`, literally. */
  clear(scope?: string): void;
  /** Replaces value and tags together. */
  setWithTags(hash: string, value: T, ttlSeconds: number, tags: string[]): void;
  setForWithTags(hash: string, value: T, ttlMs: number | 'never', tags: string[]): void;
  /** Entries removed. */
  invalidateByTag(tag: string): number;
  invalidateByTags(tags: string[]): number;
}
/** The `...Sync` calls wait for a flush only in a cache with durability `'sync'`. */
export interface Cache<T> extends Promised<CacheTx<T>>, Synced<CacheTx<T>> {
  list(options?: ListOptions): Promise<Page<CacheEntry>>;
  stats(): Promise<CacheStats>;
}
export interface CacheOptions {
  durability?: Durability;
  /** Encoded bytes. Larger values are not stored and remove the older one. Default 5 MiB. */
  maxEntryBytes?: number;
  /** Evict the least recently used above this. */
  maxEntries?: number;
  maxBytes?: number;
}

// ---------------------------------------------------------------------------------------------
// Dedupe (in-flight jobs)

export interface Registration { jobId: string; isOwner: boolean }
export interface DedupeEntry {
  hash: string; jobId: string; state: 'pending' | 'completed' | 'failed';
  createdAtMs: number; endsAtMs: number | null;
}
export interface DedupeStats { pending: number; completed: number; failed: number; expired: number; bytes: number; waiters: number }
export interface DedupeTx<T> {
  register(hash: string): string;
  /** Of all concurrent callers exactly one is the owner; the others get the same job id. */
  registerOrJoin(hash: string): Registration;
  complete(hash: string, value: T): void;
  fail(hash: string, error: string): void;
  isInProgress(hash: string): boolean;
  clear(scope?: string): void;
  /** `false` when the job is not `jobId`'s any more; nothing changed. */
  completeOwned(hash: string, jobId: string, value: T): boolean;
  failOwned(hash: string, jobId: string, error: string): boolean;
}
export interface Dedupe<T> extends Promised<DedupeTx<T>>, Synced<DedupeTx<T>> {
  /** Resolves when the owner finishes; `undefined` when unknown, failed, cleared or timed out. */
  waitFor(hash: string): Promise<T | undefined>;
  list(options?: ListOptions): Promise<Page<DedupeEntry>>;
  stats(): Promise<DedupeStats>;
}
export interface DedupeOptions { durability?: Durability; /** Milliseconds; 0 is never. Default 300 000. */ jobTimeout?: number }

// ---------------------------------------------------------------------------------------------
// Rate limits

/** `window` in milliseconds. */
export interface RateLimitConfig { limit: number; window: number }
/** `resetTime` in Unix milliseconds. */
export interface RateLimitStatus { remaining: number; resetTime: number; limit: number }
export interface RateLimitEntry { resource: string; requests: number; config: RateLimitConfig }
export interface RateLimitStats { live: number; requests: number; expired: number; bytes: number }
export interface RateLimitTx {
  /** Checks and records in one step: never more than `limit` in a window. */
  acquire(resource: string): boolean;
  canProceed(resource: string): boolean;
  record(resource: string): void;
  status(resource: string): RateLimitStatus;
  reset(resource: string): void;
  /** Milliseconds, rounded up. */
  waitTime(resource: string): number;
  setResourceConfig(resource: string, config: RateLimitConfig): void;
  resourceConfig(resource: string): RateLimitConfig;
  /** Unix milliseconds. */
  setCooldown(origin: string, until: number): void;
  cooldown(origin: string): number | null;
  clearCooldown(origin: string): void;
  clear(): void;
}
export interface RateLimit extends Promised<RateLimitTx>, Synced<RateLimitTx> {
  list(options?: ListOptions): Promise<Page<RateLimitEntry>>;
  stats(): Promise<RateLimitStats>;
}
export interface RateLimitOptions { durability?: Durability }

export type Priority = 'user' | 'background';
/** Spans in milliseconds. */
export interface AdaptiveConfig {
  monitoringWindow?: number;
  highActivityThreshold?: number;
  moderateActivityThreshold?: number;
  recalculationInterval?: number;
  sustainedInactivityThreshold?: number;
  backgroundPauseOnIncreasingTrend?: boolean;
  maxUserScaling?: number;
  minUserReserved?: number;
}
export interface AdaptiveRateLimitStatus extends RateLimitStatus {
  userReserved: number; backgroundMax: number; backgroundPaused: boolean; recentUserActivity: number; reason: string;
}
export interface AdaptiveRateLimitEntry { resource: string; userRequests: number; backgroundRequests: number; config: RateLimitConfig }
export interface AdaptiveRateLimitStats { live: number; idle: number; userRequests: number; backgroundRequests: number; bytes: number }
/** `priority` is `'background'` unless given. */
export interface AdaptiveRateLimitTx {
  acquire(resource: string, priority?: Priority): boolean;
  canProceed(resource: string, priority?: Priority): boolean;
  record(resource: string, priority?: Priority): void;
  status(resource: string): AdaptiveRateLimitStatus;
  reset(resource: string): void;
  /** Milliseconds, rounded up. */
  waitTime(resource: string, priority?: Priority): number;
  setResourceConfig(resource: string, config: RateLimitConfig): void;
  resourceConfig(resource: string): RateLimitConfig;
  setCooldown(origin: string, until: number): void;
  cooldown(origin: string): number | null;
  clearCooldown(origin: string): void;
  clear(): void;
}
export interface AdaptiveRateLimit extends Promised<AdaptiveRateLimitTx>, Synced<AdaptiveRateLimitTx> {
  list(options?: ListOptions): Promise<Page<AdaptiveRateLimitEntry>>;
  stats(): Promise<AdaptiveRateLimitStats>;
}

// ---------------------------------------------------------------------------------------------
// Agent state

/** An empty or absent `run` is the state of the whole session. */
export interface Identity { tenant: string; user: string; session: string; run?: string }
export interface StateRecordInput {
  /** Any non-empty string, a ULID by custom. See `newEventId`. */
  id: string;
  identity: Identity;
  kind: string;
  /** A safe integer. */
  version?: number;
  bytes: Uint8Array;
  /** Unix milliseconds; set by the store when absent. */
  updatedAt?: number;
}
/** A version outside the safe integers cannot come from this package; it is read rounded. */
export interface StateRecord { id: string; identity: Required<Identity>; kind: string; version: number; bytes: Buffer; updatedAt: number }
/** `expected: null`: the slot must be absent. */
export interface SlotExpectation { identity: Identity; kind: string; expected: string | null }
/** Reading across identities must be meant: `{ maintenance: true }`. */
export interface ListScope { maintenance?: boolean }
export interface StateEntry { eventId: string; identity: Required<Identity>; kind: string; version: number; bytes: number; updatedAt: number }
export interface StateStats { states: number; bytes: number }
export interface StateTx {
  save(record: StateRecordInput): void;
  /** Throws a `StateError` with code `NOT_FOUND` when absent. */
  load(identity: Identity, kind: string): StateRecord;
  loadByEventId(eventId: string): StateRecord;
  delete(identity: Identity, kind: string): void;
  listKind(scope: ListScope, kindPrefix: string): StateRecord[];
  /** `limit` from 1 to 10 001. */
  listKindBounded(scope: ListScope, kindPrefix: string, limit: number): StateRecord[];
  saveIf(expectations: SlotExpectation[], next: StateRecordInput): void;
  saveBatchIf(expectations: SlotExpectation[], writes: StateRecordInput[]): void;
  deleteIf(expectation: SlotExpectation): boolean;
  deleteScope(tenant: string, user: string, session: string): number;
  listKindForIdentity(identity: Identity, kindPrefix: string, limit?: number): StateRecord[];
  /** Pages of 1 to 256. */
  scanKindForTenant(scope: ListScope, tenant: string, kindPrefix: string, limit: number, cursor?: string | null): Page<StateRecord>;
}
export interface State extends Promised<StateTx> {
  loadSync(identity: Identity, kind: string): StateRecord;
  loadByEventIdSync(eventId: string): StateRecord;
  list(options?: ListOptions): Promise<Page<StateEntry>>;
  stats(): Promise<StateStats>;
}
export interface StateOptions { durability?: Durability; /** Milliseconds. Default: off. */ lateWindow?: number }
/** A new ULID, larger than every one this process made before. */
export function newEventId(): string;

// ---------------------------------------------------------------------------------------------
// Watching

export type StoreKind = 'formTokens' | 'handoff' | 'cache' | 'dedupe' | 'rateLimit' | 'adaptiveRateLimit' | 'state';
export interface Change {
  /** Ascending; the changes of one transaction share one. */
  lsn: number;
  lastOfTransaction: boolean;
  store: StoreKind | 'other';
  /** Of the cache, the limiter, ... */
  name: string | null;
  /** The key; for state, the kind. */
  key: string;
  identity: Required<Identity> | null;
  kind: 'put' | 'consumed' | 'resultSet' | 'claimed' | 'released' | 'configured' | 'paused' | 'resumed'
    | 'removed' | 'expired' | 'other';
}
export interface WatchFilter {
  store?: StoreKind;
  name?: string;
  prefix?: string;
  tenant?: string;
  /** Changes kept for a slow reader. Who falls further behind gets `WATCH_LAGGED` once. */
  buffer?: number;
}
/** Starts at the call of `watch`. Ends with `return()` (a `break`) and when the room closes. */
export interface Watch extends AsyncIterableIterator<Change> {
  return(): Promise<IteratorReturnResult<undefined>>;
}

// ---------------------------------------------------------------------------------------------
// The room

export interface StoreStats { store: string; name: string | null; live: number; taken: number; expired: number; rows: number; bytes: number }
export interface RoomStats { engine: Record<string, JsonValue>; sweepBacklog: number; stores: StoreStats[] }
export interface VerifyReport { ok: boolean; findings: string[]; moreFindings: number; notes: string[]; rows: number; blocks: number; frames: number }
export interface BackupReport { lsn: number; rows: number; bytes: number }
export interface CompactReport { bytesBefore: number; bytesAfter: number; pagesMoved: number }
export interface SweepReport { total: number; rescheduled: number; steppedOver: number }

/** All stores, answering at once; they see each other's changes. Valid inside the function only. */
export interface Transaction {
  formTokens(options?: FormTokensOptions): FormTokensTx;
  handoff<T extends object = JsonObject>(options?: HandoffOptions): HandoffTx<T>;
  cache<T = JsonValue>(name: string, options?: CacheOptions): CacheTx<T>;
  bytesCache(name: string, options?: CacheOptions): CacheTx<Buffer>;
  dedupe<T = JsonValue>(name: string, options?: DedupeOptions): DedupeTx<T>;
  rateLimit(name: string, config: RateLimitConfig, options?: RateLimitOptions): RateLimitTx;
  adaptiveRateLimit(name: string, config?: RateLimitConfig, adaptive?: AdaptiveConfig, options?: RateLimitOptions): AdaptiveRateLimitTx;
  state(options?: StateOptions): StateTx;
}

export class Cloakroom {
  private constructor();
  /**
   * Opens the file, and creates it when missing. Several opens of one file in one process, worker
   * threads among them, share one room; the first one's options hold, the last close closes it.
   * `':memory:'` opens a room of its own in memory.
   */
  static open(path: string, options?: OpenOptions): Promise<Cloakroom>;
  static openSync(path: string, options?: OpenOptions): Cloakroom;
  /** Makes durable what was called before. Later calls get a `ClosedError`. Twice is fine. */
  close(): Promise<void>;
  closeSync(): void;
  [Symbol.asyncDispose](): Promise<void>;
  readonly closed: boolean;
  readonly path: string;

  formTokens(options?: FormTokensOptions): FormTokens;
  handoff<T extends object = JsonObject>(options?: HandoffOptions): Handoff<T>;
  /** Values are JSON. One name holds either JSON or bytes: use one of the two calls for it. */
  cache<T = JsonValue>(name: string, options?: CacheOptions): Cache<T>;
  /** Values are bytes, kept as they are. Takes any `Uint8Array`, gives `Buffer`s. */
  bytesCache(name: string, options?: CacheOptions): Cache<Buffer>;
  dedupe<T = JsonValue>(name: string, options?: DedupeOptions): Dedupe<T>;
  rateLimit(name: string, config: RateLimitConfig, options?: RateLimitOptions): RateLimit;
  /** `config` defaults to 200 per hour. */
  adaptiveRateLimit(name: string, config?: RateLimitConfig, adaptive?: AdaptiveConfig, options?: RateLimitOptions): AdaptiveRateLimit;
  state(options?: StateOptions): State;

  /**
   * Runs `fn` as one transaction: a throw rolls everything back and rejects the promise with what
   * was thrown. Otherwise the promise resolves with the result when all of it is durable. `fn`
   * must be synchronous; one that returns a promise is rolled back.
   */
  atomically<R>(fn: (tx: Transaction) => R): Promise<Awaited<R>>;
  watch(filter?: WatchFilter): Watch;
  stats(): Promise<RoomStats>;
  verify(): Promise<VerifyReport>;
  backup(path: string): Promise<BackupReport>;
  sweep(): Promise<SweepReport>;
  checkpoint(): Promise<void>;
  compact(): Promise<CompactReport>;
  /** Writes all entries as lines of JSON to a new file. */
  export(path: string): Promise<void>;
}

// ---------------------------------------------------------------------------------------------

/** The same methods, each answering a promise. */
export type Promised<S> = { [M in keyof S]: S[M] extends (...args: infer A) => infer R ? (...args: A) => Promise<R> : never };
/** The same methods, named `...Sync`. */
export type Synced<S> = { [M in keyof S as `${M & string}Sync`]: S[M] };
