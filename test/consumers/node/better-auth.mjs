// Better Auth as an issuer: its jwt plugin as it is, but for the audience.
//
//   rotate    the key in use has reached the end of its rotationInterval
//   sign      a token with another payload, of the key in use
import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { toNodeHandler } from 'better-auth/node'
import { jwt } from 'better-auth/plugins'
import { address, audience, serve } from './serve.mjs'

const database = { user: [], session: [], account: [], verification: [], jwks: [] }
const auth = betterAuth({
  baseURL: `https://${address}`,
  secret: crypto.randomUUID(),
  database: memoryAdapter(database),
  emailAndPassword: { enabled: true },
  plugins: [jwt({ jwt: { audience } })],
  telemetry: { enabled: false },
})
const handler = toNodeHandler(auth)

await serve(() => handler, {
  rotate() {
    for (const key of database.jwks) key.expiresAt ??= new Date(Date.now() - 1)
    return database.jwks.length
  },
  async sign({ payload }) {
    const { token } = await auth.api.signJWT({ body: { payload } })
    return token
  },
})
