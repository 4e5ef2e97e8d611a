// An API without sessions: each request brings its token.
import { KeysUnavailable } from '../../../lib/keys.mjs'
import { verify } from '../../../lib/verify.mjs'

export async function GET(request) {
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get('authorization') ?? '') ?? []
  try {
    const user = token ? await verify(token) : null
    if (user) return Response.json(user)
    return Response.json(null, { status: 401, headers: { 'WWW-Authenticate': token ? 'Bearer error="invalid_token"' : 'Bearer' } })
  } catch (error) {
    if (error instanceof KeysUnavailable) return Response.json(null, { status: 503 })
    throw error
  }
}
