#!/bin/sh
# Writes .env, which docker-compose reads by itself: a credential made at random for each that docker-compose.yaml
# asks for. What is there already stays, so that a second run changes nothing.
set -eu
cd "$(dirname "$0")/.."
file=${1:-.env}

# Hexadecimal only: it needs no quoting in YAML, JSON, URLs and shells.
random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
# What Airflow's Fernet wants: 32 bytes in URL-safe base64.
random_fernet_key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }

umask 077
touch "$file"
chmod 600 "$file"
add() {
    grep -q "^$1=" "$file" || printf '%s=%s\n' "$1" "$2" >>"$file"
}
add COMPOSE_PROJECT_NAME telemetry-lake
add LAKE_ACCESS_KEY_ID "$(random_hex 10)"
add LAKE_SECRET_ACCESS_KEY "$(random_hex 24)"
add POSTGRES_PASSWORD "$(random_hex 24)"
add AIRFLOW_JWT_SECRET "$(random_hex 32)"
add AIRFLOW_API_SECRET_KEY "$(random_hex 32)"
add AIRFLOW_FERNET_KEY "$(random_fernet_key)"
add AIRFLOW_ADMIN_PASSWORD "$(random_hex 12)"
echo "$file holds the credentials of the containers; the Airflow user is 'admin' with AIRFLOW_ADMIN_PASSWORD."
