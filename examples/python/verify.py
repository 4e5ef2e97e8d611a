"""Says who sent a token, or None. Needs PyJWT 2.6 or later, with cryptography.

    python3 verify.py SOURCE ISSUER AUDIENCE      tokens on standard input, one a line
"""

import json
import os
import sys
import time
import urllib.request

import jwt


class KeysUnavailable(Exception):
    """There are no keys to judge by: no verdict about a token. Answer 503, not 401."""


class MountedKeys:
    """The file of a mounted ConfigMap, read again when it is another one."""

    def __init__(self, path):
        self.path, self.seen, self.keys = path, None, None

    def get(self, kid):
        try:
            info = os.stat(self.path)
            found = (info.st_ino, info.st_mtime_ns, info.st_size)
            if found != self.seen:
                with open(self.path, encoding="utf-8") as file:
                    self.keys = by_kid(json.load(file))
                self.seen = found
        except FileNotFoundError as error:  # no key is trusted any more
            self.seen = self.keys = None
            raise KeysUnavailable("no trusted keys") from error
        except (OSError, ValueError, jwt.PyJWTError) as error:
            if self.keys is None:  # otherwise the last good ones do
                raise KeysUnavailable("the trusted keys cannot be read") from error
        return self.keys.get(kid)


class MirroredKeys:
    """The mirror's URL, asked once a minute, and about an unknown key once a second.

    SSL_CERT_FILE names the file of the authority that the mirror's certificate is of.
    """

    def __init__(self, url):
        self.url, self.keys, self.asked, self.answered = url, None, -60.0, -600.0

    def get(self, kid):
        age = time.monotonic() - self.asked
        if age >= 60 or (age >= 1 and kid not in (self.keys or {})):
            self.asked = time.monotonic()
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    self.keys = by_kid(json.load(answer))
                self.answered = time.monotonic()
            except (OSError, ValueError, jwt.PyJWTError):
                pass  # for ten minutes the last good ones do
        if self.keys is None or time.monotonic() - self.answered > 600:
            raise KeysUnavailable("the mirror gives no keys")
        return self.keys.get(kid)


def by_kid(key_set):
    """Each key with the one algorithm that it is for."""
    keys = {}
    for jwk in key_set["keys"]:
        parsed = jwt.PyJWK(jwk)  # takes RS256 for an RSA key without "alg", and what fits the curve
        default = {"RSA": "RS256", "OKP": "EdDSA"}.get(jwk["kty"]) or {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[jwk["crv"]]
        keys[jwk.get("kid")] = (parsed.key, jwk.get("alg", default))
    return keys


def verify(token, keys, issuer, audience):
    """The token's claims, or None where it is not to be trusted."""
    try:
        header = jwt.get_unverified_header(token)
        if "crit" in header or "b64" in header:  # PyJWT would not mind
            return None
        found = keys.get(header.get("kid"))
        if found is None:
            return None
        key, algorithm = found
        return jwt.decode(
            token, key, algorithms=[algorithm], issuer=issuer, audience=audience, leeway=60,
            options={"require": ["iss", "aud", "exp", "sub"]},
        )
    except KeysUnavailable:
        raise
    except Exception:  # whatever a token does to a parser, it is a no
        return None


def main():
    source, issuer, audience = sys.argv[1:]
    keys = MirroredKeys(source) if source.startswith("https://") else MountedKeys(source)
    for line in sys.stdin:
        try:
            claims = verify(line.strip(), keys, issuer, audience)
            print(json.dumps(claims and {"sub": claims["sub"]}), flush=True)
        except KeysUnavailable as error:
            print(f"unavailable: {error}", flush=True)


if __name__ == "__main__":
    main()
