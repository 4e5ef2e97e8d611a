// Verifies tokens with panva/jose: it reads one object with token, issuer and
// audience a line, and answers each with a line.
import { webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'
import { createRemoteJWKSet, jwtVerify } from 'jose'

globalThis.crypto ??= webcrypto // before Node.js 20

// After a fetch, jose asks for no unknown key for 30 s unless told otherwise. A
// test does not wait that long for a rotation.
const keys = createRemoteJWKSet(new URL(process.argv[2]), { cooldownDuration: 0 })

for await (const line of createInterface({ input: process.stdin })) {
  const { token, issuer, audience } = JSON.parse(line)
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience })
    console.log(`accepted ${payload.sub}`)
  } catch (error) {
    console.log(`refused ${error.code ?? error.cause?.code ?? error}`)
  }
}
