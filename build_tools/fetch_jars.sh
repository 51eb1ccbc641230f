#!/bin/sh
# Fetches the jars of java/pom.xml into java/lib/ and those of java/hadoop/pom.xml, which only tests and benchmarks
# use and which no image has, into java/hadoop/lib/; compares each with the checksums.sha256 beside its pom.
# With --write-checksums it writes these files from what Maven brought (after a change of a pom).
set -eu
cd "$(dirname "$0")/.."

list_jars() { find lib -name '*.jar' | LC_ALL=C sort; }

# Prints what differs from checksums.sha256 (wrong, missing and unknown jars); nothing when they agree.
differences() {
    # --quiet still names what is wrong or missing, on standard output; its summary on standard error is dropped.
    sha256sum --check --quiet checksums.sha256 2>/dev/null || true
    list_jars | while read -r jar; do
        grep -qF "  $jar" checksums.sha256 || echo "$jar: not in $1/checksums.sha256"
    done
}

fetch() {
    rm -rf lib
    mkdir lib
    # Maven's output goes to a file: even quiet it sends control characters to a terminal.
    if ! mvn -q -B -f pom.xml generate-resources >lib/maven.log 2>&1; then
        cat lib/maven.log >&2
        echo "Maven could not fetch the artifacts of $1/pom.xml, for the reason above. Is the network available?" \
            "Then run the same command again; what was fetched is kept." >&2
        rm -rf lib
        exit 1
    fi
}

write_checksums() {
    fetch "$1"
    list_jars | xargs sha256sum >checksums.sha256
    echo "$1/checksums.sha256 now lists $(wc -l <checksums.sha256) jars; read its diff before you commit it."
}

bring() {
    if [ -d lib ] && [ -z "$(differences "$1")" ]; then
        return
    fi
    fetch "$1"
    found=$(differences "$1")
    if [ -n "$found" ]; then
        echo "$found" >&2
        echo "The jars in $1/lib/ do not match $1/checksums.sha256." >&2
        echo "If you changed $1/pom.xml, run 'make lock-java'; otherwise Maven's copies are damaged: delete" \
            "these artifacts from ~/.m2/repository and run 'make install' again." >&2
        rm -rf lib
        exit 1
    fi
}

for folder in java java/hadoop; do
    [ -f "$folder/pom.xml" ] || continue
    # In a subshell: `cd` ends with it, `exit 1` ends all because of set -e.
    (
        cd "$folder"
        if [ "${1:-}" = --write-checksums ]; then write_checksums "$folder"; else bring "$folder"; fi
    )
done
