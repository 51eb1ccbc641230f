# The start of a server of the web pages, after fetch_package.sh.
# Wants SETTINGS, PAGES_URL, MINIMUM_CLIENTS, ADMIN_SECRET and, for the analysis service, OPENID_ISSUER,
# OPENID_CLIENT, OPENID_SECRET and OPENID_ADMINS.

# Scripts that analysts try run in boxes of it; without it they would have the rights of this server, so it does not start.
apt-get -qq update
apt-get -qq install --no-install-recommends bubblewrap

umask 077
install -d -o lake -g lake -m 700 "$root/var/lib/telemetry_lake"
{
    "$python" -m telemetry_lake.deploy.machine settings "$SETTINGS"
    echo "TELEMETRY_LAKE_WEB__HOST=$address"
    echo "TELEMETRY_LAKE_WEB__PUBLIC_URL=$PAGES_URL"
    echo "TELEMETRY_LAKE_WEB__CUBES_DIRECTORY=/var/lib/telemetry_lake/dashboard"
    echo "TELEMETRY_LAKE_WEB__MINIMUM_CLIENTS_ELSEWHERE=$MINIMUM_CLIENTS"
    if [ -n "$OPENID_ISSUER" ]; then
        echo "TELEMETRY_LAKE_WEB__ANALYSES=true"
        echo "TELEMETRY_LAKE_WEB__OPENID__ISSUER=$OPENID_ISSUER"
        echo "TELEMETRY_LAKE_WEB__OPENID__CLIENT_ID=$OPENID_CLIENT"
        echo "TELEMETRY_LAKE_WEB__OPENID__CLIENT_SECRET=$(
            "$python" -m telemetry_lake.deploy.machine secret "$OPENID_SECRET" client_secret
        )"
        [ -z "$OPENID_ADMINS" ] || echo "TELEMETRY_LAKE_WEB__OPENID__ADMIN_GROUP=$OPENID_ADMINS"
        echo "TELEMETRY_LAKE_AIRFLOW__PASSWORD=$(
            "$python" -m telemetry_lake.deploy.machine secret "$ADMIN_SECRET" password
        )"
    fi
} >"$root/etc/telemetry_lake/settings"

cat >"$root/etc/systemd/system/telemetry-lake-web.service" <<END
[Unit]
Description=Telemetry Lake web pages
After=network-online.target
Wants=network-online.target

[Service]
User=lake
EnvironmentFile=/etc/telemetry_lake/settings
WorkingDirectory=/opt/telemetry_lake
ExecStart=/opt/telemetry_lake/.venv/bin/python -m web
Restart=always
RestartSec=1
ProtectSystem=strict
ReadWritePaths=/var/lib/telemetry_lake
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now telemetry-lake-web
curl -sSf --retry 60 --retry-delay 2 --retry-all-errors --output /dev/null "http://$address:8050/__lbheartbeat__"
