// Builds the native library beside index.js. `--debug` builds without optimisation.
import { spawnSync } from 'node:child_process'
import { copyFileSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.url))
const isDebug = process.argv.includes('--debug')
const build = ['build', '--locked', '--message-format=json-render-diagnostics', ...(isDebug ? [] : ['--release'])]
const cargo = spawnSync('cargo', build, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 })
if (cargo.status !== 0) process.exit(cargo.status ?? 1)

const messages = cargo.stdout.toString().split('\n').filter(Boolean).map((line) => JSON.parse(line))
const built = messages.findLast((message) => message.target?.kind?.includes('cdylib') && message.filenames)
const library = built.filenames.find((name) => /\.(so|dylib|dll)$/.test(name))
const destination = join(folder, 'cloakroom.node')
// A process that has the old one loaded keeps it.
copyFileSync(library, `${destination}.new`)
renameSync(`${destination}.new`, destination)
