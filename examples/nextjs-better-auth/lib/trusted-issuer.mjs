// A Better Auth plugin: whoever holds a token of the issuer signs in with it, and has a
// session of ours from then on.
//
//   POST /api/auth/sign-in/social   {"provider": ID, "idToken": {"token": TOKEN}}

/** verify(token) is the token's user, or null. Better Auth takes an error for a no as well. */
export function trustedIssuer({ id, verify }) {
  const noRedirects = () => {
    throw new Error(`sign in to ${id} with a token`)
  }
  const provider = {
    id,
    name: id,
    accountSubject: ({ profile }) => profile.id,
    idToken: { verify: async (token) => (await verify(token)) !== null },
    async getUserInfoFromIdToken(token) {
      const profile = await verify(token)
      if (!profile) return null
      const { id: _, ...user } = profile
      return { user, data: profile }
    },
    createAuthorizationURL: noRedirects,
    validateAuthorizationCode: noRedirects,
    getUserInfo: async () => null,
  }
  return {
    id: `trusted-issuer-${id}`,
    init: (context) => ({ context: { socialProviders: [provider, ...context.socialProviders] } }),
  }
}
