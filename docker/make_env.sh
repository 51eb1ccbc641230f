#!/bin/sh
# Writes .env, which docker-compose reads: a random value for each credential that docker-compose.yaml needs.
# Values that exist stay, so that a second run changes nothing.
set -eu
cd "$(dirname "$0")/.."
file=${1:-.env}

# Hexadecimal only: it needs no quoting in YAML, JSON, URLs and shells.
random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
# The form of Airflow's Fernet keys: 32 bytes in URL-safe base64.
random_fernet_key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }

umask 077
touch "$file"
chmod 600 "$file"
add() {
    grep -q "^$1=" "$file" || printf '%s=%s\n' "$1" "$2" >>"$file"
}
add COMPOSE_PROJECT_NAME telemetry-lake
for role in NODE DRAIN DOORBELL JOBS ANALYST SCRIPT ANALYSES ANOMALIES WEB MAINTENANCE MONITOR; do
    add "LAKE_SECRET_OF_$role" "$(random_hex 24)"
done
add SEAWEEDFS_INNER_SECRET "$(random_hex 32)"
add POSTGRES_PASSWORD "$(random_hex 24)"
add AIRFLOW_JWT_SECRET "$(random_hex 32)"
add AIRFLOW_API_SECRET_KEY "$(random_hex 32)"
add AIRFLOW_FERNET_KEY "$(random_fernet_key)"
add AIRFLOW_ADMIN_PASSWORD "$(random_hex 12)"
echo "$file holds the credentials of the containers; the Airflow user is 'admin' with AIRFLOW_ADMIN_PASSWORD."
