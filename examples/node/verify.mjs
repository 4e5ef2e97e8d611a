// Says who sent a token, or null.
//
//   node verify.mjs SOURCE ISSUER AUDIENCE      tokens on standard input, one a line
import { createInterface } from 'node:readline'
import { jwtVerify } from 'jose'
import { KeysUnavailable, trustedKeys } from './keys.mjs'

const [source, issuer, audience] = process.argv.slice(2)
const keys = trustedKeys(source)

async function verify(token) {
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
      requiredClaims: ['exp', 'sub'],
      clockTolerance: 60,
    })
    return { sub: payload.sub }
  } catch (error) {
    if (error instanceof KeysUnavailable) throw error
    return null
  }
}

for await (const token of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await verify(token)))
  } catch (error) {
    console.log(`unavailable: ${error.message}`)
  }
}
