"""The metrics that each ingest node shows on its private port; `ingest_server.health` makes them.

They are listed here and not imported: the core knows nothing of the programs built on it. A test compares
the list with what a node shows.
"""

from typing import Final

from telemetry_lake.monitoring.metric import Kind, Label, Metric, Origin, Unit

NODE_PREFIX: Final = "telemetry_lake_ingest_"
STATUSES: Final = (
    *("200", "202", "204", "400", "404", "405", "411", "413", "414", "431"),
    *("500", "503", "507"),
)
SPOOL_STATES: Final = ("open", "sealed", "unannounced", "damaged")
CHILDREN: Final = ("worker", "shipper", "observer")


def _node(
    name: str, kind: Kind, unit: Unit, meaning: str, action: str, labels: tuple[Label, ...] = ()
) -> Metric:
    return Metric(NODE_PREFIX + name, kind, unit, meaning, action, labels, origin=Origin.NODE)


NODE_METRICS: Final = (
    _node(
        "requests_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Answers by status, also those to health checks.",
        "5xx: the node cannot make pings durable; look at commit_failures_total and spool_free_bytes. "
        "4xx: look which client sends them in live.rejected_pings and the balancer's log.",
        (Label("status", STATUSES),),
    ),
    _node(
        "request_seconds",
        Kind.HISTOGRAM,
        Unit.SECONDS,
        "From a submission's first byte to its 200; the count is that of acknowledged pings.",
        "Slower: compare with commit_seconds; if that is flat, clients or the balancer are slow.",
    ),
    _node(
        "commit_seconds",
        Kind.HISTOGRAM,
        Unit.SECONDS,
        "One group's write and fdatasync.",
        "Slower: the spool's disk is slow or shared; look at its burst credits and at other writers.",
    ),
    _node(
        "body_bytes_total",
        Kind.COUNTER,
        Unit.BYTES,
        "Bytes of acknowledged bodies.",
        "A jump without more requests: clients send larger pings.",
    ),
    _node(
        "commit_failures_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Groups that could not be made durable.",
        "Any: the spool's disk is full or broken; take the node out of the balancer.",
    ),
    _node(
        "aborted_requests_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Requests whose client went away or was too slow.",
        "A jump: the network or the balancer cuts connections, or the node is too slow.",
    ),
    _node(
        "refused_connections_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Connections that were one too many.",
        "Any: a flood, or too few nodes for the clients.",
    ),
    _node(
        "shipped_segments_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Raw objects announced to the queue.",
        "Stops while pings arrive: the shipper does not work; look at upload_errors_total and "
        "queue_errors_total.",
    ),
    _node(
        "shipped_pings_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Pings in raw objects announced to the queue.",
        "Falls behind the acknowledged pings for more than some minutes: the shipper does not work.",
    ),
    _node(
        "shipped_bytes_total",
        Kind.COUNTER,
        Unit.BYTES,
        "Bytes of raw objects announced to the queue.",
        "Use it to see what the raw bucket grows by.",
    ),
    _node(
        "upload_errors_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Failed tries to reach S3.",
        "Rising: S3 or the way to it is down; pings wait in the spool, see spool_free_bytes.",
    ),
    _node(
        "queue_errors_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Failed tries to reach SQS.",
        "Rising: SQS or the way to it is down; raw objects wait unannounced.",
    ),
    _node(
        "damaged_segments_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Segments set aside as damaged.",
        "Any: acknowledged pings are at stake; keep the file in the spool and read docs/ingest_spec.md.",
    ),
    _node(
        "salvaged_pings_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Pings saved from segments set aside.",
        "Compare with the pings of the damaged segment: the difference is lost.",
    ),
    _node(
        "child_restarts_total",
        Kind.COUNTER,
        Unit.COUNT,
        "Processes of the node that died and were started again.",
        "Rising: read the node's log; a worker that dies again and again is out of memory or met a defect.",
        (Label("child", CHILDREN),),
    ),
    _node(
        "connections",
        Kind.GAUGE,
        Unit.COUNT,
        "Open connections.",
        "Near connections_max of the workers: more nodes are needed, or a flood is under way.",
    ),
    _node(
        "held_bytes",
        Kind.GAUGE,
        Unit.BYTES,
        "What requests hold of the workers' memory.",
        "Near memory_max_bytes: slow senders of large pings; pings are answered 503 at the limit.",
    ),
    _node(
        "s3_reachable",
        Kind.GAUGE,
        Unit.YES_OR_NO,
        "Whether S3 answered when the shipper looked last; absent before the first look.",
        "0: pings wait in the spool, nothing is lost until spool_free_bytes is used up.",
    ),
    _node(
        "sqs_reachable",
        Kind.GAUGE,
        Unit.YES_OR_NO,
        "Whether SQS answered when the shipper looked last; absent before the first look.",
        "0: raw objects wait unannounced; the drain does not see them.",
    ),
    _node(
        "spool_segments",
        Kind.GAUGE,
        Unit.COUNT,
        "Segments in the spool by state.",
        "sealed or unannounced rising: the shipper does not get through. damaged: see "
        "damaged_segments_total.",
        (Label("state", SPOOL_STATES),),
    ),
    _node(
        "spool_bytes",
        Kind.GAUGE,
        Unit.BYTES,
        "Bytes of segments in the spool by state.",
        "Rising: the shipper does not get through; at spool_max_bytes pings are answered 507.",
        (Label("state", SPOOL_STATES),),
    ),
    _node(
        "spool_free_bytes",
        Kind.GAUGE,
        Unit.BYTES,
        "Free bytes on the spool's disk.",
        "Falling: S3 is away, or something else fills the disk; below spool_min_free_bytes pings are "
        "answered 507.",
    ),
    _node(
        "spool_room_bytes",
        Kind.GAUGE,
        Unit.BYTES,
        "Bytes that the spool still takes before pings are answered 507, by both of its limits.",
        "Shrinks for minutes: segments are filled faster than they are shipped; look at S3 and the shipper.",
    ),
    _node(
        "oldest_segment_age_seconds",
        Kind.GAUGE,
        Unit.SECONDS,
        "Age of the oldest segment that is not shipped; 0 without any.",
        "Above some minutes: the shipper does not work, or S3 or SQS is away.",
    ),
)
"""Every metric of docs/ingest_spec.md."""
