# The start of the machine that watches, after fetch_package.sh: the exporter of facts, Prometheus and Alertmanager.
# Wants SETTINGS, ADMIN_SECRET and TOPIC.
apt-get -qq update
apt-get -qq install --no-install-recommends prometheus prometheus-alertmanager

umask 077
install -d -o lake -g lake -m 700 "$root/var/lib/telemetry_lake"
{
    "$python" -m telemetry_lake.deploy.machine settings "$SETTINGS"
    echo "TELEMETRY_LAKE_MONITORING__HOST=$address"
    echo "TELEMETRY_LAKE_MONITORING__STATE_DIRECTORY=/var/lib/telemetry_lake"
    echo "TELEMETRY_LAKE_AIRFLOW__PASSWORD=$(
        "$python" -m telemetry_lake.deploy.machine secret "$ADMIN_SECRET" password
    )"
} >"$root/etc/telemetry_lake/settings"
umask 022

cat >"$root/etc/systemd/system/telemetry-lake-exporter.service" <<END
[Unit]
Description=Telemetry Lake exporter of metrics
After=network-online.target
Wants=network-online.target

[Service]
User=lake
EnvironmentFile=/etc/telemetry_lake/settings
WorkingDirectory=/opt/telemetry_lake
ExecStart=/opt/telemetry_lake/.venv/bin/python -m telemetry_lake export-metrics
Restart=always
RestartSec=5
ProtectSystem=strict
ReadWritePaths=/var/lib/telemetry_lake
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
END

cp "$home/monitoring/rules.yaml" "$root/etc/prometheus/rules.yaml"
cat >"$root/etc/prometheus/prometheus.yml" <<END
global:
  scrape_interval: 15s
rule_files: [rules.yaml]
alerting:
  alertmanagers: [{static_configs: [{targets: ["127.0.0.1:9093"]}]}]
scrape_configs:
  - job_name: exporter
    static_configs: [{targets: ["$address:9108"]}]
  - job_name: ingest
    ec2_sd_configs:
      - region: $REGION
        port: 8010
        filters:
          - {name: "tag:telemetry-lake:environment", values: ["$ENVIRONMENT"]}
          - {name: tag-key, values: ["telemetry-lake:node"]}
          - {name: instance-state-name, values: [running]}
END
# The routes are those of every lake; here all of them end at one topic, and AWS sends the mails.
{
    sed '/^receivers:/,$d' "$home/monitoring/alertmanager.yaml"
    echo "receivers:"
    for receiver in page ticket watchdog; do
        echo "  - name: $receiver"
        [ $receiver = watchdog ] || echo "    sns_configs: [{topic_arn: \"$TOPIC\", sigv4: {region: $REGION}}]"
    done
} >"$root/etc/prometheus/alertmanager.yml"
echo "ARGS=\"--web.listen-address=$address:9090 --storage.tsdb.retention.time=15d\"" >"$root/etc/default/prometheus"
echo 'ARGS="--web.listen-address=127.0.0.1:9093 --cluster.listen-address="' >"$root/etc/default/prometheus-alertmanager"

systemctl daemon-reload
systemctl enable --now telemetry-lake-exporter
systemctl restart prometheus prometheus-alertmanager
curl -sSf --retry 60 --retry-delay 2 --retry-all-errors --output /dev/null "http://$address:9108/metrics"
