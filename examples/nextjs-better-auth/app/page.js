import { headers } from 'next/headers'
import { auth } from '../lib/auth.mjs'

export default async function Page() {
  const session = await auth.api.getSession({ headers: await headers() })
  return <main>{session ? `Signed in as ${session.user.email}` : 'Not signed in'}</main>
}
