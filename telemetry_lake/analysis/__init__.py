"""For analysts: pings as a Spark DataFrame, and histograms added up, with percentiles and a picture.

::

    from telemetry_lake.analysis import pings, plot_histograms, sum_histograms

    week = pings(spark, document_type="main", channel="nightly", dates="2026-11-16..2026-11-22", sample=10)
    pauses = sum_histograms(week, "GC_MS", by=["normalized_os"])
    for one in pauses:
        print(one.label, one.percentile(50), one.percentile(95))
    plot_histograms(pauses, unit="ms").savefig("pauses.png")

`spark` is a session in which the tables of the lake are found; `jobs.spark_session.open_session` makes one.
Of the core, only this package imports Spark; Spark, pandas and matplotlib are loaded by the functions that
need them.
"""

from telemetry_lake.analysis.histogram_sums import HistogramSum, add_up, histograms_to_pandas, sum_histograms
from telemetry_lake.analysis.ping_frames import pings
from telemetry_lake.analysis.plot import plot_histograms

__all__ = ["HistogramSum", "add_up", "histograms_to_pandas", "pings", "plot_histograms", "sum_histograms"]
