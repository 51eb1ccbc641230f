#!/bin/sh
# Brings .venv-emulator, what stands in for AWS in the tests of provisioning, to the state of requirements-emulator.txt.
# Quick when nothing has changed. The image has no such file, and needs no emulator.
set -eu
cd "$(dirname "$0")/.."

[ -f requirements-emulator.txt ] || exit 0
stamp=.venv-emulator/installed
wanted=$(cat requirements-emulator.txt build_tools/install_emulator.sh | sha256sum)
# Programs in .venv-emulator/bin carry the path of their interpreter, so it does not survive a move of this folder.
wanted="$wanted $PWD"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv-emulator/bin/python -c '' 2>/dev/null; then
    exit 0
fi

echo "Installing the emulator of requirements-emulator.txt into .venv-emulator"
rm -rf .venv-emulator
.venv/bin/uv venv --quiet --python .venv/bin/python .venv-emulator
.venv/bin/uv pip sync --quiet --compile-bytecode --system-certs --python .venv-emulator/bin/python --require-hashes \
    requirements-emulator.txt
echo "$wanted" >"$stamp"
