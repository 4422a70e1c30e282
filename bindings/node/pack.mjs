// Packs the main package and the package of this platform into `dist`, installs both without a
// network into a fresh folder, and runs the README's first example there.
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.url))
const dist = join(folder, 'dist')
const read = (name) => JSON.parse(readFileSync(join(folder, name), 'utf8'))
const main = read('package.json')
const platforms = read('platforms.json')
const libc = process.platform === 'linux'
  ? process.report.getReport().header.glibcVersionRuntime ? '-gnu' : '-musl'
  : ''
const here = `${process.platform}-${process.arch}${libc}`

function write(target, description, files) {
  mkdirSync(target, { recursive: true })
  writeFileSync(join(target, 'package.json'), `${JSON.stringify(description, null, 2)}\n`)
  for (const name of files) copyFileSync(join(folder, name), join(target, name))
  execFileSync('npm', ['pack', '--silent', '--pack-destination', dist], { cwd: target })
}

rmSync(dist, { recursive: true, force: true })
const { version, license } = main
const { os, cpu, libc: libraries } = platforms[here]
write(
  join(dist, here),
  { name: `@cloakroom/${here}`, version, license, main: 'cloakroom.node', files: ['cloakroom.node'], os, cpu, libc: libraries },
  ['cloakroom.node'],
)
// The packages of the platforms are named only in what is published: a checkout builds its own.
const { devDependencies, scripts, ...published } = main
published.optionalDependencies = Object.fromEntries(Object.keys(platforms).map((name) => [`@cloakroom/${name}`, version]))
write(join(dist, 'cloakroom'), published, ['index.js', 'index.mjs', 'index.d.ts', 'loader.js', 'README.md'])

const fresh = mkdtempSync(join(tmpdir(), 'cloakroom-install-'))
try {
  writeFileSync(join(fresh, 'package.json'), '{ "private": true }\n')
  const packed = [`cloakroom-${here}-${version}.tgz`, `cloakroom-${version}.tgz`].map((name) => join(dist, name))
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', '--silent', ...packed], { cwd: fresh, stdio: 'inherit' })
  const example = /```js\n([^]*?)```/.exec(readFileSync(join(folder, 'README.md'), 'utf8'))[1]
  writeFileSync(join(fresh, 'example.mjs'), example)
  const printed = execFileSync(process.execPath, ['example.mjs'], { cwd: fresh, encoding: 'utf8' })
  if (printed !== '1 of 8 got { cart: [ 1, 2, 3 ] }\n') throw new Error(`the README's example printed ${printed}`)
  execFileSync(process.execPath, ['-e', "new (require('cloakroom').CloakroomError)('IO', 'm')"], { cwd: fresh })
  console.log(`packed, installed without a network, and ran the README's example: ${dist}`)
} finally {
  rmSync(fresh, { recursive: true, force: true })
}
