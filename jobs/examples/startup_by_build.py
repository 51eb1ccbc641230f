"""How long does Firefox take to start, build by build? A notebook in cells that runs as a program, too."""

# %% [markdown]
# # Start-up time by build
#
# Open this file as a notebook in the project's folder (editors know its cells by `# %%`, and jupytext makes
# an `.ipynb` of it), or run it as a program:
#
#     python jobs/examples/startup_by_build.py --table live --dates 2026-11-23
#
# It reads the main pings of some days, from the local stack unless the settings point elsewhere, prints the
# start-up time of each build, and draws two pictures: these times, and one histogram by channel.

# %%
import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

# A notebook runs in the project's folder; a program anywhere.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]) if "__file__" in globals() else ".")

from matplotlib.figure import Figure
from pyspark.sql.functions import col, expr, percentile_approx, to_date
from pyspark.sql.functions import count as count_of

from jobs.spark_session import open_session
from telemetry_lake.analysis import pings, plot_histograms, sum_histograms
from telemetry_lake.settings import Role, load_settings

# %% [markdown]
# ## What to look at
# In a notebook change the defaults; a program takes options.

# %%
today = datetime.now(UTC).date()
options = argparse.ArgumentParser(description="Start-up time of Firefox by build, with two pictures.")
options.add_argument("--dates", default=f"{today - timedelta(days=7)}..{today}", help="FIRST..LAST, UTC")
options.add_argument("--channel", help="an update channel; all without it")
options.add_argument("--sample", type=int, default=100, help="percent of the clients")
options.add_argument("--table", default="stable", help="stable (until yesterday) or live (minutes fresh)")
# The clients of the local stack make up their histograms; Firefox has for example GC_MS.
options.add_argument("--histogram", default="GC_OPEN_MS", help="one that is in milliseconds")
options.add_argument("--output", default="startup_by_build", help="path of the pictures without suffix")
chosen = options.parse_args([] if "ipykernel" in sys.modules else None)

# %% [markdown]
# ## Read
# Nothing is read yet: Spark waits until it is asked for a result, and then reads the partitions and columns
# that the result needs.

# %%
spark = open_session(load_settings(role=Role.ANALYST), "start-up time by build")
main_pings = pings(
    spark,
    document_type="main",
    dates=chosen.dates,
    channel=chosen.channel,
    sample=chosen.sample,
    table=chosen.table,
)

# %% [markdown]
# ## Start-up time by build
# All pings of a session tell how long it took to start, so we take the first ping of each. What is not a
# number, or more than ten minutes, is the mistake of a clock.

# %%
first_paint = "get_json_object(document, '$.payload.simpleMeasurements.firstPaint')"
starts = (
    main_pings.where("get_json_object(document, '$.payload.info.subsessionCounter') = '1'")
    .select(
        col("normalized_channel").alias("channel"),
        col("app_build_id").alias("build"),
        expr(f"try_cast({first_paint} AS int)").alias("ms"),
    )
    .where("ms BETWEEN 1 AND 600000 AND build RLIKE '^20[0-9]{12}$'")
)
by_build = (
    starts.groupBy("channel", "build")
    .agg(
        count_of("*").alias("starts"),
        percentile_approx("ms", 0.5).alias("median_ms"),
        percentile_approx("ms", 0.95).alias("p95_ms"),
    )
    .withColumn("built", to_date(expr("left(build, 8)"), "yyyyMMdd"))
    .orderBy("channel", "build")
    .toPandas()
)
if by_build.empty:
    sys.exit(f"{chosen.table}.pings has no start-up times for {chosen.dates}: --table live is minutes fresh")
print(by_build.drop(columns="built").to_string(index=False))

# %% [markdown]
# Some people never update: builds that are much older than the newest would squeeze all others together.

# %%
drawn_builds = by_build[by_build["built"] > by_build["built"].max() - timedelta(days=90)]
figure = Figure(figsize=(9, 5), layout="constrained")
axes = figure.subplots()
for number, (channel, builds) in enumerate(drawn_builds.groupby("channel")):
    axes.plot(builds["built"], builds["median_ms"], f"C{number}o-", label=f"{channel}, median")
    axes.plot(builds["built"], builds["p95_ms"], f"C{number}^:", label=f"{channel}, 95th percentile")
axes.set_title(f"Start-up time, {drawn_builds['starts'].sum():,} starts, {chosen.dates}")
axes.set_xlabel("date of the build")
axes.set_ylabel("from process start to first paint (ms)")
axes.set_ylim(bottom=0)
axes.grid(visible=True, alpha=0.3)
axes.tick_params(axis="x", rotation=30)
figure.legend(loc="outside right upper")
figure.savefig(f"{chosen.output}.png")
print(f"{chosen.output}.png")

# %% [markdown]
# ## One histogram, by channel
# Every definition of the histogram is summed for itself: what two versions of Firefox counted in different
# buckets is never mixed. Of several we draw the one with most samples.

# %%
sums = sum_histograms(main_pings, chosen.histogram, by=["normalized_channel"])
for one in sums:
    median_ms, p95_ms = one.percentile(50), one.percentile(95)
    print(f"{one.label}: {one.samples:,} samples, median {median_ms:.0f} ms, 95 % {p95_ms:.0f} ms")

# %%
if sums:
    largest = max(sums, key=lambda one: one.samples)
    drawn = [one for one in sums if (one.definition, one.process) == (largest.definition, largest.process)]
    plot_histograms(drawn, unit="ms").savefig(f"{chosen.output}_{chosen.histogram}.png")
    print(f"{chosen.output}_{chosen.histogram}.png")
else:
    print(f"no ping has the histogram {chosen.histogram}")
