# The first part of the start of every machine: what it is, its credentials, and the code that it runs.
# Wants ENVIRONMENT, REGION, CODE_BUCKET, PACKAGE_KEY and ENVIRONMENT_KEY.
metadata_url=${METADATA_URL:-http://169.254.169.254}
s3_url=${S3_URL:-https://s3.$REGION.amazonaws.com}
root=${ROOT:-}
home=$root/opt/telemetry_lake
token=$(curl -sSf --retry 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 900' "$metadata_url/latest/api/token")

metadata() {
    curl -sSf --retry 5 -H "X-aws-ec2-metadata-token: $token" "$metadata_url/latest/meta-data/$1"
}

credentials=$(metadata "iam/security-credentials/$(metadata iam/security-credentials/)")

credential() {
    python3.11 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <<<"$credentials"
}

# Unpack an archive of the bucket of code, whose key is <kind>/<sha256>/<name>, into a folder.
fetch() {
    local archive sha256=${1#*/}
    archive=$(mktemp)
    # The keys are in a file that only this process sees, not among arguments.
    curl -sSf --retry 5 --retry-connrefused --aws-sigv4 "aws:amz:$REGION:s3" --output "$archive" \
        --config <(printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' \
            "$(credential AccessKeyId)" "$(credential SecretAccessKey)" "$(credential Token)") \
        --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$s3_url/$CODE_BUCKET/$1"
    echo "${sha256%%/*}  $archive" | sha256sum --check --quiet
    mkdir -p "$2"
    tar -xzf "$archive" -C "$2"
    rm "$archive"
}

fetch "$PACKAGE_KEY" "$home"
# With an archive of the Python packages a machine starts in seconds, also when PyPI and Debian do not answer.
if [ -n "$ENVIRONMENT_KEY" ]; then
    fetch "$ENVIRONMENT_KEY" "$home/.venv"
else
    apt-get -qq update
    apt-get -qq install --no-install-recommends python3.11-venv
    python3.11 -m venv "$home/.venv"
    "$home/.venv/bin/pip" install --quiet --no-deps --require-hashes --only-binary :all: -r "$home/requirements-machines.txt"
fi
python=$home/.venv/bin/python
cd "$home"
export AWS_DEFAULT_REGION=$REGION

instance=$(metadata instance-id)
address=$(metadata local-ipv4)
getent passwd lake >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin lake
install -d -m 755 "$root/etc/telemetry_lake"
