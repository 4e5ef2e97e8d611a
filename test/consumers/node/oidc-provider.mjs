// oidc-provider, with a client for each algorithm that its tokens can be signed with.
// Access tokens for a resource are JWTs (RFC 9068).
//
//   rotate    new keys, beside those of before
import { exportJWK, generateKeyPair } from 'jose'
import Provider from 'oidc-provider'
import { address, serve } from './serve.mjs'

const algorithms = ['RS256', 'ES256', 'Ed25519']
let keys = []
let handler

async function rotate() {
  const generation = keys.length / algorithms.length + 1
  const fresh = await Promise.all(algorithms.map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true })
    return { ...await exportJWK(privateKey), alg, use: 'sig', kid: `${alg}-${generation}` }
  }))
  keys = [...fresh, ...keys] // the first one of an algorithm signs
  handler = new Provider(`https://${address}`, {
    jwks: { keys },
    clients: algorithms.map((alg) => ({
      client_id: alg,
      client_secret: 'secret',
      grant_types: ['client_credentials', 'authorization_code'],
      redirect_uris: ['https://app.example.com/callback'],
      id_token_signed_response_alg: alg,
    })),
    cookies: { keys: ['secret'] },
    enabledJWA: { idTokenSigningAlgValues: algorithms },
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource, client) => ({
          scope: 'orders',
          audience: resource,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: client.clientId } },
        }),
      },
    },
  }).callback()
  return generation
}

await rotate()
await serve(() => handler, { rotate })
