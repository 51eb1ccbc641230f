"""Submissions of every kind, for tests of properties: ordinary ones, and every way of being unusual."""

from typing import Any

from hypothesis import strategies as st

from lake_testing.ping_builders import (
    REVISION,
    classic_document,
    generic_path,
    glean_document,
    telemetry_path,
    unified_document,
)

Submission = tuple[str, dict[str, Any]]
"""The path of a submission, and its document."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**52, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
counts = st.integers(0, 2**40) | st.integers(0, 3)
sums = st.integers(-2, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**53, 2**65)
decimals = st.decimals(0, 10**6, places=13, allow_nan=False).map(float)
sum_fields = st.dictionaries(
    st.sampled_from(["sum", "log_sum", "log_sum_squares", "sum_squares_lo", "sum_squares_hi"]),
    sums,
    max_size=5,
)
ranges = st.sampled_from(
    [
        ([1, 10], 5, 1, (0, 1, 4, 7, 10)),
        ([1, 2], 3, 2, (0, 1, 2)),
        ([1, 2], 3, 4, (0, 1, 2)),
        ([1, 50], 51, 5, (0, 1, 25, 50)),
        ([1, 3000], 10, 0, (0, 1, 3, 8, 21, 57, 154, 414, 1114, 3000)),
    ]
)


@st.composite
def histograms(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly ordinary ones, and now and then every way in which one can be unusual."""
    range_, bucket_count, kind, bounds = draw(ranges)
    chosen = draw(st.lists(st.sampled_from(bounds), unique=True, max_size=5).map(sorted))
    values_of: dict[str, Any] = {str(bound): draw(counts) for bound in chosen}
    histogram: dict[str, Any]
    if draw(st.booleans()):
        histogram = {
            "range": range_,
            "bucket_count": bucket_count,
            "histogram_type": kind,
            "values": values_of,
            **draw(sum_fields),
        }
    else:
        histogram = {
            "bucket_count": bucket_count,
            "histogram_type": kind,
            "sum": draw(sums),
            "range": range_,
            "values": values_of,
        }
    match draw(st.integers(0, 40)):
        case 0:
            histogram["new field"] = draw(values)
        case 1:
            del histogram[draw(st.sampled_from(["range", "bucket_count", "histogram_type"]))]
        case 2:
            histogram["histogram_type"] = draw(st.sampled_from([6, 17, 1.0]))
        case 3:
            histogram["values"] = dict(reversed(list(histogram["values"].items())))
        case 4:
            histogram["range"] = draw(
                st.sampled_from([[0, 10], [10, 1], [1, 10.0], [-1, 10], [1, 2**31 - 1]])
            )
        case 5:
            histogram = dict(draw(st.permutations(list(histogram.items()))))
        case 6:
            histogram["values"][draw(st.sampled_from(["2", "01", "x", " 1", "1e1"]))] = 1
        case 7:
            histogram["values"]["1"] = draw(scalars)
    return histogram


names = st.sampled_from(
    [
        "CYCLE_COLLECTOR_FULL",
        "A11Y_INSTANTIATED_FLAG",
        "STARTUP_CRASH_DETECTED",
        "GC_REASON_2",
        "X",
        "É",
        'q"',
    ]
)
keys = st.text(max_size=4) | st.sampled_from(["google.urlbar", "ddg"])
plain = st.dictionaries(names, histograms(), max_size=4)
keyed = st.dictionaries(names, st.dictionaries(keys, histograms(), max_size=3), max_size=3)
extras = st.dictionaries(st.text(max_size=5), values, max_size=3)


@st.composite
def unified(draw: st.DrawFn) -> Submission:
    """Return a document of the unified format."""
    payload: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "histograms": plain,
                "keyedHistograms": keyed,
                "processes": st.dictionaries(
                    st.sampled_from(["parent", "content", "gpu", "a/b~c", "é"]),
                    st.fixed_dictionaries(
                        {}, optional={"histograms": plain, "keyedHistograms": keyed, "scalars": values}
                    ),
                    max_size=3,
                ),
                "simpleMeasurements": values,
            },
        )
    )
    document = unified_document(**payload)
    if draw(st.booleans()):
        document["payload"]["info"]["revision"] = REVISION
    for name in draw(st.lists(st.sampled_from(["id", "clientId", "environment"]), unique=True)):
        del document[name]
    if draw(st.booleans()):
        document["application"]["channel"] = draw(st.sampled_from(["", "release", "mine", None]))
    return telemetry_path("main"), {**draw(extras), **document}


@st.composite
def classic(draw: st.DrawFn) -> Submission:
    """Return a document of the first format, with sparse histograms."""
    document = classic_document(**{**draw(extras), "histograms": draw(plain)})
    document["ver"] = 1
    return telemetry_path("idle-daily"), document


@st.composite
def dense(draw: st.DrawFn) -> Submission:
    """Return a document of the first format, with the count of every bucket."""
    counted = st.lists(st.integers(0, 5), min_size=3, max_size=3)
    five = st.lists(st.integers(-1, 5) | st.floats(-2, 2) | st.just(2**60 + 1), min_size=5, max_size=5)
    one = st.tuples(counted, five).map(lambda parts: parts[0] + parts[1])
    chosen = draw(st.dictionaries(st.sampled_from(["A11Y_INSTANTIATED_FLAG", "X"]), one, max_size=2))
    return telemetry_path("idle-daily"), {**classic_document(histograms=chosen), "ver": 2}


BOUNDS = {
    "timing": (0, 1, 2, 961548, 19951584, 827968132, 599512966122),
    "memory": (0, 1, 1023, 101070, 2097151, 2**40 - 1),
    "custom": (0, 1, 10, 87, 2**62),
}
labels = st.sampled_from(["one", "two", "__other__", "", "a|b", "é"]) | st.text(max_size=3)


@st.composite
def distributions(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Mostly what the Glean SDK sends, and now and then what its schema lets pass besides."""
    bounds: st.SearchStrategy[int] = st.sampled_from(BOUNDS[kind])
    if draw(st.integers(0, 5)) == 0:
        bounds |= st.integers(0, 2**64)
    chosen = draw(st.lists(bounds, unique=True, max_size=5))
    count = counts | st.integers(-5, 5) | st.just(1.0) | st.integers(2**62, 2**64)
    of_bounds: dict[str, Any] = {str(bound): draw(counts) for bound in chosen}
    sent: dict[str, Any] = {"values": of_bounds, "sum": draw(st.integers(-2, 2**66))}
    match draw(st.integers(0, 12)):
        case 0:
            sent["count"] = draw(st.integers())
        case 1:
            of_bounds["01"] = 1
        case 2 if kind != "custom":
            del sent["sum"]
        case 3:
            of_bounds["1"] = draw(count)
        case 4:
            sent["more"] = draw(values)
    return sent


@st.composite
def glean(draw: st.DrawFn) -> Submission:
    """Return a ping of Glean with distributions of all kinds, with and without the sections about it."""
    metrics: dict[str, Any] = {"counter": {"browser.tabs": 4}}
    for kind in draw(st.lists(st.sampled_from(sorted(BOUNDS)), unique=True)):
        names = st.sampled_from(["page.load_time", "page.size", f"only.{kind}"])
        of_label = st.dictionaries(labels, distributions(kind), max_size=3)
        metrics[f"{kind}_distribution"] = draw(st.dictionaries(names, distributions(kind), max_size=3))
        metrics[f"labeled_{kind}_distribution"] = draw(st.dictionaries(names, of_label, max_size=2))
        metrics[f"dual_labeled_{kind}_distribution"] = draw(
            st.dictionaries(names, st.dictionaries(labels, of_label, max_size=2), max_size=1)
        )
    document = glean_document(metrics=metrics)
    for name in draw(st.lists(st.sampled_from(["ping_info", "client_info"]), unique=True)):
        del document[name]
    return generic_path("org-mozilla-fenix", draw(st.sampled_from(["metrics", "my-own"]))), document


generic = extras.map(lambda more: (generic_path("lake-demo", "greeting"), {**more, "text": "hello"}))
submissions = unified() | classic() | dense() | glean() | generic
