#!/usr/bin/env bash
# Makes ready what test/consumers runs: Node.js with Better Auth, oidc-provider,
# panva/jose and Next.js; Python with PyJWT; a JDK with Gson. Root on Debian gets
# what is missing; elsewhere it is named, and the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
lacks() { ! command -v "$1" > /dev/null; }
lacks "${NODE:-node}" && missing+=(nodejs)
lacks npm && missing+=(npm)
"${PYTHON:-/usr/bin/python3}" -c 'import jwt, cryptography' 2> /dev/null || missing+=(python3-jwt python3-cryptography)
lacks javac && missing+=(default-jdk-headless)
[ -e /usr/share/java/gson.jar ] || missing+=(libgoogle-gson-java)
bash hack/packages.sh "${missing[@]}"
if ! "${NODE:-node}" -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 9) ? 0 : 1)'; then
  echo "too old: Node.js $("${NODE:-node}" --version); Next.js and Better Auth need 20.9 or later"
  exit 3
fi

for folder in test/consumers/node examples/node examples/nextjs-better-auth; do
  if ! cmp -s "$folder/package-lock.json" "$folder/node_modules/.for-lock"; then
    bash hack/progress.sh "Installing the packages of $folder" npm ci --silent --no-audit --no-fund --prefix "$folder"
    cp "$folder/package-lock.json" "$folder/node_modules/.for-lock"
  fi
done
