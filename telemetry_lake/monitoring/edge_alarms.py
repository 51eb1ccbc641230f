"""The alarms of the edge: ingest nodes and their spools, by the metrics that each node shows."""

from typing import Final

from telemetry_lake.monitoring.rules import FAST, LOW, SLOW, Alarm, Burn, CloudWatchForm, Severity

SUBMISSIONS_ANSWERED: Final = 0.9995
"""The promise of the edge over 30 days: submissions that are answered 200 or a deserved 4xx."""
ERRORS_MIN: Final = 10
"""Of a service that few clients use, one error would be a large share."""

_BUDGETS: Final = ("IngestErrorBudgetFast", "IngestErrorBudgetSlow", "IngestErrorBudgetLow")
_NODE_IS_DOWN: Final = ("instance",)
_WHAT_S3_STOPS: Final = (
    "SegmentOld",
    "QueueOld",
    "FreshnessBudgetFast",
    "FreshnessBudgetSlow",
    "SourceUnread",
)


def _unanswered(window: str) -> str:
    """Return the share of submissions that got neither a 200 nor a deserved 4xx, over a window."""
    rate = f"[<{window}>]"
    failed = f'sum(rate(telemetry_lake_ingest_requests_total{{status=~"5.."}}{rate}))'
    deserved = f'sum(rate(telemetry_lake_ingest_requests_total{{status=~"202|4.."}}{rate}))'
    # requests_total also counts the 200s of the balancer's checks, which would hide what clients get.
    stored = f"sum(rate(telemetry_lake_ingest_request_seconds_count{rate}))"
    return f"{failed} / ({failed} + {deserved} + {stored})"


def _edge_budget(name: str, severity: Severity, burn: Burn, mutes: tuple[str, ...]) -> Alarm:
    limit = f"{burn.times * (1 - SUBMISSIONS_ANSWERED):.6g}"
    errors = f'sum(increase(telemetry_lake_ingest_requests_total{{status=~"5.."}}[<{burn.long}>]))'
    return Alarm(
        name,
        severity,
        f"{{{{ $value | humanizePercentage }}}} of the submissions of the last <{burn.long}> were not taken; "
        f"{1 - SUBMISSIONS_ANSWERED:.2%} are allowed. Their clients keep them and try again.",
        f"{_unanswered(burn.long)} > {limit} and {_unanswered(burn.short)} > {limit} "
        f"and {errors} > {ERRORS_MIN}",
        mutes=mutes,
    )


EDGE_ALARMS: Final = (
    _edge_budget(_BUDGETS[0], Severity.PAGE, FAST, _BUDGETS[1:]),
    _edge_budget(_BUDGETS[1], Severity.PAGE, SLOW, _BUDGETS[2:]),
    _edge_budget(_BUDGETS[2], Severity.TICKET, LOW, ()),
    Alarm(
        "IngestNodeDown",
        Severity.PAGE,
        "The ingest node {{ $labels.instance }} does not answer.",
        'up{job="ingest"} == 0',
        wait="2m",
        mutes=("SegmentOld", "CommitSlow", "SpoolFilling"),
        mutes_where_equal=_NODE_IS_DOWN,
        cloudwatch=CloudWatchForm(
            "AWS/ApplicationELB",
            "UnHealthyHostCount",
            "Maximum",
            threshold=0,
            period_seconds=60,
            periods=2,
            dimensions=("LoadBalancer", "TargetGroup"),
        ),
    ),
    Alarm(
        "IngestNodesMissing",
        Severity.PAGE,
        "Prometheus knows no ingest node at all, so nothing watches the edge.",
        'absent(up{job="ingest"})',
        wait="5m",
        cloudwatch=CloudWatchForm(
            "AWS/ApplicationELB",
            "HealthyHostCount",
            "Minimum",
            threshold=1,
            comparison="LessThanThreshold",
            period_seconds=60,
            periods=3,
            dimensions=("LoadBalancer", "TargetGroup"),
            missing_data="breaching",
        ),
    ),
    Alarm(
        "CommitSlow",
        Severity.TICKET,
        "On {{ $labels.instance }} one commit in a hundred takes {{ $value | humanizeDuration }} or more.",
        "histogram_quantile(0.99, sum by (instance, le) "
        "(rate(telemetry_lake_ingest_commit_seconds_bucket[<5m|30s>]))) > 0.25",
        wait="10m",
    ),
    Alarm(
        "SpoolFilling",
        Severity.PAGE,
        "The spool of {{ $labels.instance }} will be full within <4h> if it goes on like this.",
        "predict_linear(telemetry_lake_ingest_spool_room_bytes[<15m>], <4h:s>) < 0 "
        "and telemetry_lake_ingest_spool_room_bytes > 0",
        wait="5m",
    ),
    Alarm(
        "SpoolFull",
        Severity.PAGE,
        "The spool of {{ $labels.instance }} is full: it answers 507 to every ping.",
        "telemetry_lake_ingest_spool_room_bytes == 0",
        wait="1m",
        mutes=("SpoolFilling", *_BUDGETS),
    ),
    Alarm(
        "SegmentOld",
        Severity.PAGE,
        "{{ $labels.instance }} has kept pings for {{ $value | humanizeDuration }} without shipping them.",
        "telemetry_lake_ingest_oldest_segment_age_seconds > <5m:s|30s>",
        wait="2m",
    ),
    Alarm(
        "SegmentDamaged",
        Severity.TICKET,
        "{{ $labels.instance }} keeps {{ $value }} damaged segments; acknowledged pings may be in them.",
        'telemetry_lake_ingest_spool_segments{state="damaged"} > 0',
    ),
    Alarm(
        "ChildRestarting",
        Severity.TICKET,
        "The {{ $labels.child }} of {{ $labels.instance }} has died {{ $value | humanize }} times in <10m>.",
        "increase(telemetry_lake_ingest_child_restarts_total[<10m|30s>]) > 3",
    ),
    Alarm(
        "S3Unreachable",
        Severity.PAGE,
        "{{ $value | humanize }} ingest nodes do not reach S3: pings wait in their spools.",
        "count(telemetry_lake_ingest_s3_reachable == 0) > 0",
        wait="2m",
        mutes=_WHAT_S3_STOPS,
    ),
    Alarm(
        "SqsUnreachable",
        Severity.PAGE,
        "{{ $value | humanize }} ingest nodes do not reach SQS: raw objects are not announced to the drain.",
        "count(telemetry_lake_ingest_sqs_reachable == 0) > 0",
        wait="2m",
        mutes=_WHAT_S3_STOPS,
    ),
)
