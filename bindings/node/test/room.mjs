import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'
import { Cloakroom } from 'cloakroom'

const open = []
const folders = []

/** A path in a folder that is removed after the test. */
export function place(name = 'test.cloak') {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
  folders.push(folder)
  return join(folder, name)
}

/** A room that is closed after the test. */
export async function room(options, path = place()) {
  const opened = await Cloakroom.open(path, options)
  open.push(opened)
  return opened
}

export const inFuture = () => Math.floor(Date.now() / 1000) + 600

export function token(lookupKey, more = {}) {
  return { lookupKey, subject: { authenticated: 'ann' }, purpose: 'pay', expiresAt: inFuture(), ...more }
}
export const binding = { subject: { authenticated: 'ann' }, purpose: 'pay' }

afterEach(async () => {
  await Promise.all(open.splice(0).map((opened) => opened.close()))
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})
