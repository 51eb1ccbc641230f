# The start of an ingest node, after fetch_package.sh: its volume, its service, and what watches for its end.
# Wants RAW_BUCKET, INDEX_QUEUE, DEAD_LETTER_QUEUE, WORKERS and SPOOL_GIB, too.
node=$(metadata tags/instance/telemetry-lake:node)
group=$(metadata tags/instance/aws:autoscaling:groupName)
spool=$root/spool

# The volume outlives machines: it may hold acknowledged pings that are nowhere else. It is formatted only when it holds
# nothing at all (2), never when it cannot be read (any other status).
volume=$("$python" -m telemetry_lake.deploy.machine claim-volume \
    --environment "$ENVIRONMENT" --node "$node" --instance "$instance")
device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volume/-/}
timeout 60 sh -c "until [ -b '$device' ]; do sleep 1; done"
found=0
blkid -p "$device" >/dev/null || found=$?
case $found in
    0) ;;
    2) mkfs.ext4 -q -L spool "$device" ;;
    *) echo "$device cannot be read: blkid ended with $found" >&2 && exit 1 ;;
esac
mkdir -p "$spool"
echo "$device $spool ext4 noatime,nodev,nosuid,noexec,nofail 0 2" >>"$root/etc/fstab"
mount "$spool"
resize2fs "$device" 2>/dev/null
install -d -o lake -g lake -m 700 "$spool/segments"

cat >"$root/etc/telemetry_lake/settings" <<END
TELEMETRY_LAKE_S3__REGION=$REGION
TELEMETRY_LAKE_S3__RAW_BUCKET=$RAW_BUCKET
TELEMETRY_LAKE_SQS__REGION=$REGION
TELEMETRY_LAKE_SQS__INDEX_QUEUE_NAME=$INDEX_QUEUE
TELEMETRY_LAKE_SQS__DEAD_LETTER_QUEUE_NAME=$DEAD_LETTER_QUEUE
TELEMETRY_LAKE_INGEST__HOST=$address
TELEMETRY_LAKE_INGEST__PRIVATE_HOST=$address
TELEMETRY_LAKE_INGEST__NODE=$node
TELEMETRY_LAKE_INGEST__WORKERS=$WORKERS
TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY=$spool/segments
TELEMETRY_LAKE_INGEST__SPOOL_MAX_BYTES=$((SPOOL_GIB * 1024 * 1024 * 1024 * 9 / 10))
TELEMETRY_LAKE_INGEST__STOP_SHIP_SECONDS=3000
END

cat >"$root/etc/systemd/system/telemetry-lake-ingest.service" <<END
[Unit]
Description=Telemetry Lake ingest node
After=network-online.target
Wants=network-online.target
RequiresMountsFor=$spool

[Service]
User=lake
EnvironmentFile=/etc/telemetry_lake/settings
WorkingDirectory=/opt/telemetry_lake
ExecStart=/opt/telemetry_lake/.venv/bin/python -m ingest_server
Restart=always
RestartSec=1
LimitNOFILE=65536
# Above STOP_SHIP_SECONDS: a node that is stopped ships its spool first.
TimeoutStopSec=3100
KillMode=mixed
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=$spool
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
END

# Stops the node when its auto-scaling group ends this machine, and lets the group go on when the spool is shipped.
cat >"$root/etc/systemd/system/telemetry-lake-end.service" <<END
[Unit]
Description=Ships the spool before this machine is ended
After=telemetry-lake-ingest.service

[Service]
Environment=AWS_DEFAULT_REGION=$REGION
WorkingDirectory=/opt/telemetry_lake
ExecStart=/opt/telemetry_lake/.venv/bin/python -m telemetry_lake.deploy.machine ship-before-end \\
    --instance $instance --group $group --unit telemetry-lake-ingest --spool $spool --volume $volume
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
END

systemctl daemon-reload
systemctl enable --now telemetry-lake-ingest telemetry-lake-end
# The end of the log of cloud-init says whether this machine became a node.
curl -sSf --retry 60 --retry-delay 2 --retry-all-errors --output /dev/null "http://$address:8010/__heartbeat__"
