#!/bin/sh
# Brings .venv and .venv-emulator (Python packages) and java/lib (jars) to the state of the locked files, and web/static to
# that of its sources. Quick when nothing has changed.
set -eu
cd "$(dirname "$0")/.."

# Two installs at once would undo each other; the second waits, and then has nothing to do.
if [ "${TELEMETRY_LAKE_INSTALL_LOCKED:-}" != yes ] && command -v flock >/dev/null 2>&1; then
    TELEMETRY_LAKE_INSTALL_LOCKED=yes exec flock requirements.txt build_tools/install.sh
fi

stamp=.venv/installed
java_files=$(find java -name pom.xml -o -name checksums.sha256 | LC_ALL=C sort)
wanted=$(cat requirements.txt requirements-build.txt $java_files build_tools/*.sh | sha256sum)
# Programs in .venv/bin carry the path of their interpreter, so .venv does not survive a move of this folder.
venv_is_ours() {
    grep -qsF " $PWD/.venv" .venv/pyvenv.cfg &&
        .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -d java/lib ] && venv_is_ours; then
    build_tools/install_emulator.sh
    exec build_tools/build_pages.sh
fi

build_tools/preflight.sh
rm -f "$stamp"

if ! venv_is_ours; then
    echo "Making .venv"
    rm -rf .venv
    "$(build_tools/preflight.sh --print-python)" -m venv "$PWD/.venv"
fi

# pip installs uv alone, from its entry in requirements.txt; uv, ten times faster, does the rest.
# --compile-bytecode: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile all
# that it imports: Airflow's scheduler in 5.5 s instead of 3.7, Great Expectations with Spark in 12.8 instead of 6.4.
# --system-certs: as pip and Maven do, trust the authorities that this machine trusts, such as a company's proxy.
awk '/^[a-z]/ { is_uv = /^uv==/ } is_uv' requirements.txt >.venv/uv.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt

echo "Installing the Python packages of requirements.txt into .venv"
.venv/bin/uv pip sync --quiet --compile-bytecode --system-certs --python .venv/bin/python --require-hashes \
    --build-constraints requirements-build.txt requirements.txt

echo "Fetching the Java artifacts of java/pom.xml into java/lib, those of the tests into java/hadoop/lib"
build_tools/fetch_jars.sh

build_tools/install_emulator.sh
build_tools/build_pages.sh
echo "$wanted" >"$stamp"
