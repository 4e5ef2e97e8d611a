import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { trustedIssuer } from './trusted-issuer.mjs'
import { verify } from './verify.mjs'

// Yours is a real one. This one is global, because Next.js loads a module once for pages
// and once more for routes.
const database = (globalThis.database ??= { user: [], session: [], account: [], verification: [] })

// BETTER_AUTH_URL and BETTER_AUTH_SECRET are read by Better Auth itself.
export const auth = betterAuth({
  database: memoryAdapter(database),
  plugins: [trustedIssuer({ id: 'login', verify })],
})
