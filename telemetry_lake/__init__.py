"""The core of the lake. Its rooms, in the order in which a ping passes them:

- `storage`: objects in S3, their keys, and records that are written once;
- `raw`: what an ingest node hands over: submission paths, raw objects, index messages and their queue;
- `drain`: claim, convert, validate, publish, acknowledge: from index messages to committed rows;
- `convert`: bytes in, rows out; `convert.fast_histograms` is its compiled part;
- `documents`: a ping's JSON text, and how a row is put together to a document again;
- `histograms`: what a histogram is: bucket ranges, definitions, the stored form, measures, sums of many;
- `tables`: Iceberg: definitions, catalog, files, checks, and commits that happen once;
- `audits`: what checks found in batches and dates, and the pages that show it;
- `recovery`: what brings back pings that did not arrive: reconcile, replay, rebuild;
- `query`: SQL over the tables;
- `dashboard`: the cubes that the dashboard shows, added up before anyone asks;
- `mapreduce`: scripts of analysts over the tables, in plain Python over Arrow;
- `analysis_jobs`: the analysis service: saved scripts, their schedules, and their runs;
- `monitoring`: the closed list of metrics, and the exporter that reads facts and shows them;
- `analysis`: DataFrames and sums of histograms for analysts; the only room that imports Spark;
- `backfill`: the one-time copy of the historic archive into the same tables;
- `commands`: `python -m telemetry_lake <command>`;
- `deploy`: what another machine needs to run this code.

Beside the rooms are the modules that every room may use: `settings`, `failures`, `columns`, `units`,
`notices`, `project_files` and `numba_options`.

The core imports none of the other packages of this project. Which room may import which is the contract
"The rooms of the core are layers" in `pyproject.toml`. `raw`, `storage` and the modules beside the rooms
are the light part, which the ingest server may import.
"""

__version__ = "0.1.0"
"""The version of this project; package metadata and `/__version__` take it from here."""
