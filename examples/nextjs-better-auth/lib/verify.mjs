// The issuer's tokens: from claims to a user of ours.
import { jwtVerify } from 'jose'
import { KeysUnavailable, trustedKeys } from './keys.mjs'

let keys

/** The user that a token is of, or null. Throws KeysUnavailable where that cannot be told. */
export async function verify(token) {
  keys ??= trustedKeys(process.env.JWKS_SOURCE)
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer: process.env.TOKEN_ISSUER,
      audience: process.env.TOKEN_AUDIENCE,
      algorithms: ['EdDSA', 'Ed25519', 'ES256', 'PS256', 'RS256'],
      requiredClaims: ['exp', 'sub'],
      clockTolerance: 60,
    })
    return toUser(payload)
  } catch (error) {
    if (error instanceof KeysUnavailable) throw error
    return null
  }
}

// The claims are those that Better Auth's jwt plugin puts into a token; OpenID Connect
// has email_verified and picture for the last two.
function toUser(claims) {
  if (typeof claims.email !== 'string') return null
  return {
    id: claims.sub,
    email: claims.email,
    name: typeof claims.name === 'string' ? claims.name : '',
    emailVerified: (claims.emailVerified ?? claims.email_verified) === true,
    image: claims.image ?? claims.picture ?? undefined,
  }
}
