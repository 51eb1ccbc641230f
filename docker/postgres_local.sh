#!/bin/sh
# PostgreSQL from Debian's package behind the part of the official image's contract that docker-compose.yaml uses:
# POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB take effect when PGDATA is empty.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_USER:?}" "${POSTGRES_PASSWORD:?}" "${POSTGRES_DB:?}"
    password_file=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password_file"
    initdb --username="$POSTGRES_USER" --pwfile="$password_file" --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    rm -f "$password_file"
    # Every way in needs a password but the socket inside the container.
    {
        echo "local all all trust"
        echo "host all all all scram-sha-256"
    } >"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
