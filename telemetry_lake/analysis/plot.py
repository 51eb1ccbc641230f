"""A picture of histogram sums."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from telemetry_lake.analysis.histogram_sums import NOT_MEASURED, HistogramSum, add_up
from telemetry_lake.histograms.bucket_ranges import HistogramType, is_distribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PLOTTED_MAX_COUNT: Final = 8
"""More lines than this cannot be distinguished."""
PLOT_SIZE_INCHES: Final = (9.0, 5.0)
PLOT_TICKS_MAX_COUNT: Final = 20


def plot_histograms(sums: Sequence[HistogramSum], *, unit: str) -> "Figure":
    """Return a picture of one histogram, with a line for each of `sums`: the share of samples in each bucket.

    `unit` is what the histogram measures in, for example `ms`; pings do not say it. The horizontal axis of an
    exponential histogram, and of a distribution of Glean, is logarithmic beyond its first bucket.
    `figure.savefig("name.png")` writes it.

    Raises ValueError when there is nothing to draw, more than PLOTTED_MAX_COUNT lines, or when names or
    definitions differ: the heights of different buckets cannot be compared.
    """
    drawn = [one for one in sums if one.samples]
    if not drawn:
        raise ValueError("there are no samples to draw")
    if len(drawn) > PLOTTED_MAX_COUNT:
        raise ValueError(
            f"{len(drawn)} lines cannot be distinguished, only {PLOTTED_MAX_COUNT}: choose, or add some up"
        )
    whole = add_up(drawn)

    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    last = max(index for index, count in enumerate(whole.counts) if count)
    edges = _edges(axes, whole, last)
    for one in drawn:
        # One of which others have more bounds: the parts of the whole have the same ones.
        counted = dict(zip(one.bounds, one.counts, strict=True))
        shares = [100 * counted.get(bound, 0) / one.samples for bound in whole.bounds[: last + 1]]
        axes.stairs(
            shares,
            edges,
            label=f"{one.label} ({one.samples:,} samples of {one.pings:,} pings)",
            linewidth=1.5,
        )
    axes.set_title(whole.name)
    axes.set_xlabel(f"{whole.name} ({unit})")
    axes.set_ylabel("samples in the bucket (% of all)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    axes.grid(visible=True, alpha=0.3)
    return figure


def _edges(axes: "Axes", whole: HistogramSum, last: int) -> list[float]:
    """Set up the axis; return where the buckets up to number `last` begin and end on it."""
    bounds, definition = whole.bounds, whole.definition
    if definition.histogram_type in NOT_MEASURED:
        every = math.ceil((last + 1) / PLOT_TICKS_MAX_COUNT)
        shown = range(0, last + 1, every)
        axes.set_xticks([index + 0.5 for index in shown], [str(bounds[index]) for index in shown])
        return [float(index) for index in range(last + 2)]
    if definition.histogram_type is HistogramType.EXPONENTIAL or is_distribution(definition.histogram_type):
        axes.set_xscale("symlog", linthresh=max(1, *bounds[:2]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    # The last bucket has no end: it is drawn as wide as the one before it.
    ends = (*bounds[1:], 2 * bounds[-1] - bounds[-2] if len(bounds) > 1 else bounds[-1] + 1)
    return [float(bound) for bound in (*bounds[: last + 1], ends[last])]
