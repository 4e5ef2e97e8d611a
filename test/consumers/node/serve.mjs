// An issuer's HTTPS server that a test steers, with a JSON object a line on standard
// input: each is answered with a line.
//
//   up, down    listen, or let nobody reach it
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { createInterface } from 'node:readline'

// Standard output is for answers alone, whatever libraries have to say.
console.log = console.info = console.error

export const [certificateFile, keyFile, address, audience] = process.argv.slice(2)

/** Serves what handler() is at the time, and obeys. */
export async function serve(handler, commands) {
  const options = { cert: readFileSync(certificateFile), key: readFileSync(keyFile) }
  const [host, port] = address.split(':')
  let server
  const all = {
    up: () => new Promise((resolve, reject) => {
      server = createServer(options, (request, response) => handler()(request, response))
      server.once('error', reject).listen(port, host, () => resolve('up'))
    }),
    down: () => new Promise((resolve) => {
      server.close(() => resolve('down'))
      server.closeAllConnections()
    }),
    ...commands,
  }
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...parameters } = JSON.parse(line)
    process.stdout.write(`${await all[command](parameters)}\n`)
  }
}
