'use strict'
// The native library: of this checkout when it was built here, else of the platform's package.

const { existsSync } = require('node:fs')
const { join } = require('node:path')

function isMusl() {
  return process.platform === 'linux' && !process.report?.getReport?.()?.header?.glibcVersionRuntime
}

function load() {
  const local = join(__dirname, 'cloakroom.node')
  if (existsSync(local)) return require(local)
  const libc = process.platform === 'linux' ? (isMusl() ? '-musl' : '-gnu') : ''
  const name = `@cloakroom/${process.platform}-${process.arch}${libc}`
  try {
    return require(name)
  } catch (cause) {
    throw new Error(`cloakroom has no library for this platform: the package ${name} is not installed`, { cause })
  }
}

module.exports = load()
