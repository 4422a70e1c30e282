// Compiled and never run: a line that should be refused says so, and one that is not fails.
import { Cloakroom, CloakroomError, LogFullError, newEventId } from 'cloakroom'
import type { Cache, CacheTx, Change, Claim, Handoff, StateRecord, TokenAnswer } from 'cloakroom'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function same<A, B>(_: Equal<A, B>): void {}

interface User { name: string }

export async function uses(room: Cloakroom): Promise<void> {
  await using disposed = room
  same<typeof disposed, Cloakroom>(true)
  const answer = await room.formTokens().consumeFormToken('k', { subject: 'anonymous', purpose: 'p' })
  same<typeof answer, TokenAnswer>(true)
  // @ts-expect-error: a subject is not a bare id
  await room.formTokens().consumeFormToken('k', { subject: 'ann', purpose: 'p' })

  const users = room.cache<User>('users')
  same<typeof users, Cache<User>>(true)
  const user = await users.get('k')
  same<typeof user, User | undefined>(true)
  same<ReturnType<typeof users.getSync>, User | undefined>(true)
  // @ts-expect-error: another type of value
  await users.set('k', { name: 1 }, 60)
  const bytes = await room.bytesCache('b').get('k')
  same<typeof bytes, Buffer | undefined>(true)

  const claims: Handoff<User> = room.handoff<User>()
  const claim = await claims.claim('k', 1000)
  same<typeof claim, Claim<User> | null>(true)
  // @ts-expect-error: a change that is durable has no call that waits for nothing
  claims.setSync('k', { name: 'a' }, 1)

  const jobs = room.dedupe<User>('d')
  same<Awaited<ReturnType<typeof jobs.waitFor>>, User | undefined>(true)
  const allowed = room.rateLimit('r', { limit: 1, window: 1000 }).acquireSync('x')
  same<typeof allowed, boolean>(true)
  // @ts-expect-error: there are two priorities
  await room.adaptiveRateLimit('a').acquire('x', 'root')

  const record = await room.state().load({ tenant: 't', user: 'u', session: 's' }, 'kind')
  same<typeof record, StateRecord>(true)
  await room.state().save({ ...record, id: newEventId() })

  const result = await room.atomically((tx) => {
    same<CacheTx<User>, ReturnType<typeof tx.cache<User>>>(true)
    // @ts-expect-error: a transaction has no transactions
    tx.atomically(() => 1)
    return tx.cache<User>('users').get('k')?.name
  })
  same<typeof result, string | undefined>(true)
  for await (const change of room.watch({ store: 'cache' })) same<typeof change, Change>(true)
  // @ts-expect-error: no such store
  room.watch({ store: 'cash' })
  // @ts-expect-error: rooms are opened
  new Cloakroom()
}

export function handles(error: unknown): number {
  if (error instanceof LogFullError) return error.isApplied ? 0 : error.retryAfter
  if (error instanceof CloakroomError && error.code === 'CLOSED') return -1
  // @ts-expect-error: no such code
  if (error instanceof CloakroomError && error.code === 'SHUT') return -1
  return -2
}
