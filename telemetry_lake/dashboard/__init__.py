"""The cubes of the dashboard: what it shows, added up in advance, as Parquet files in the lake bucket.

- `format`: the schemas of the files, and the records that say which files belong together;
- `cube_rows`, `segment_files`: rows of cubes, and files of them, added up without being held whole;
- `making`: a new version, from the aggregates;
- `local_copy`, `local_merge`: a reader's copy of the current version, in which days are merged;
- `cubes`: one version, open for reading; `selection`, `resolve`, `answers`: from a question to its numbers.
"""
