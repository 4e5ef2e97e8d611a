// The trusted keys, from where jwks-trust-manager puts them: the file of a mounted
// ConfigMap, or the mirror's URL.
import { createLocalJWKSet, createRemoteJWKSet, errors } from 'jose'
import { readFile, stat } from 'node:fs/promises'

/** There are no keys to judge by: that is no verdict about a token. Answer 503, not 401. */
export class KeysUnavailable extends Error {}

/** What jose's jwtVerify takes as a key: a lookup among the keys of a source. */
export function trustedKeys(source) {
  return source.startsWith('https://') ? mirroredKeys(source) : mountedKeys(source)
}

// The file is looked at for each token, which costs microseconds and, unlike a
// watcher, cannot miss how a kubelet replaces files (by a symbolic link above them).
function mountedKeys(file) {
  let seen, keys
  return async function lookup(header, token) {
    try {
      const { ino, mtimeMs, size } = await stat(file)
      const found = `${ino} ${mtimeMs} ${size}`
      if (found !== seen) {
        keys = createLocalJWKSet(JSON.parse(await readFile(file, 'utf8')))
        seen = found
      }
    } catch (error) {
      // No file means that no key is trusted any more. Whatever else is wrong with it,
      // the last good keys are better than none.
      if (error.code === 'ENOENT') seen = keys = undefined
      if (!keys) throw new KeysUnavailable('no trusted keys', { cause: error })
    }
    return keys(header, token)
  }
}

// The mirror is near and asks nobody itself, so it may be asked sooner than jose would
// ask an issuer: about an unknown key once a second, and once a minute in any case. What
// it said last is good for that minute, whether it can be reached or not.
function mirroredKeys(url) {
  const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 1_000, cacheMaxAge: 60_000 })
  return async function lookup(header, token) {
    try {
      return await keys(header, token)
    } catch (error) {
      const aboutTheToken =
        error instanceof errors.JWKSNoMatchingKey ||
        error instanceof errors.JWKSMultipleMatchingKeys ||
        error instanceof errors.JOSENotSupported
      throw aboutTheToken ? error : new KeysUnavailable('the mirror gives no keys', { cause: error })
    }
  }
}
