#!/bin/sh
# Prints, in one sentence each, what this machine lacks; nothing when nothing is missing.
# Exit status 1 when something is missing.
# With --print-python it prints the Python 3.11 to use instead, and looks for nothing else.
set -eu

python_is_3_11() {
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]
}

find_python() {
    for candidate in python3.11 python3 python; do
        if python_is_3_11 "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Prints the major version: "17" for 17.0.15, "8" for 1.8.0.
java_major_version() {
    java -version 2>&1 | sed -n 's/.* version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1
}

if [ "${1:-}" = --print-python ]; then
    find_python
    exit
fi

missing=0
complain() {
    echo "$1" >&2
    missing=1
}

if python=$(find_python); then
    # Debian splits venv from Python; without this check the error would be obscure.
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        complain "Python 3.11 is here but its venv module is missing; on Debian: apt-get install python3.11-venv"
else
    complain "Python 3.11 is missing; on Debian 12: apt-get install python3 python3-venv (elsewhere: pyenv install 3.11)"
fi

if ! command -v java >/dev/null 2>&1; then
    complain "Java 17 or newer is missing (Spark and the local SQS server need it); on Debian: apt-get install openjdk-17-jre-headless"
else
    java_version=$(java_major_version)
    [ "${java_version:-0}" -ge 17 ] ||
        complain "Java 17 or newer is needed but 'java' is version ${java_version:-unknown}; on Debian: apt-get install openjdk-17-jre-headless"
fi

command -v mvn >/dev/null 2>&1 ||
    complain "Maven is missing (it fetches the Java artifacts); on Debian: apt-get install maven"

exit "$missing"
