#!/bin/bash
# Runs a command of Airflow in a container on AWS: what the task definition gives becomes the variables that Airflow and
# the lake read. LAKE_SETTINGS and AIRFLOW_SETTINGS are lines of NAME=value; the rest are secrets, each only where it is
# needed. See cloudformation/orchestration.yaml.
set -euo pipefail

export_lines() {
    local line
    while IFS= read -r line; do
        [ -z "$line" ] || export "${line?}"
    done <<<"$1"
}

export_lines "$LAKE_SETTINGS"
export_lines "$AIRFLOW_SETTINGS"
unset LAKE_SETTINGS AIRFLOW_SETTINGS

# 32 bytes in URL-safe base64, the form that Fernet needs, different for each purpose.
key() {
    python3 -c 'import base64, hashlib, os, sys
print(base64.urlsafe_b64encode(hashlib.sha256(f"{sys.argv[1]}:{os.environ[sys.argv[2]]}".encode()).digest()).decode())' \
        "$1" AIRFLOW_KEYS
}

if [ -n "${DATABASE_PASSWORD:-}" ]; then
    place="airflow:$DATABASE_PASSWORD@$DATABASE_HOST:5432/airflow"
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://$place?sslmode=require"
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC="postgresql+asyncpg://$place?ssl=require"
    export AIRFLOW__CELERY__RESULT_BACKEND="db+postgresql+psycopg2://$place?sslmode=require"
fi
if [ -n "${BROKER_PASSWORD:-}" ]; then
    export AIRFLOW__CELERY__BROKER_URL="rediss://:$BROKER_PASSWORD@$BROKER_HOST:6379/0"
    export AIRFLOW__CELERY__SSL_ACTIVE=True AIRFLOW__CELERY__SSL_MUTUAL_TLS=False
    export AIRFLOW__CELERY__SSL_CACERT=/etc/ssl/certs/ca-certificates.crt
fi
if [ -n "${AIRFLOW_KEYS:-}" ]; then
    AIRFLOW__CORE__FERNET_KEY=$(key fernet)
    AIRFLOW__API__SECRET_KEY=$(key sessions)
    AIRFLOW__API_AUTH__JWT_SECRET=$(key tokens)
    export AIRFLOW__CORE__FERNET_KEY AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET
fi
unset DATABASE_PASSWORD BROKER_PASSWORD AIRFLOW_KEYS
exec "$@"
