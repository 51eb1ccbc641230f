"""How the cubes are made of the aggregates, version after version.

- `source`: the aggregates that cubes are made of;
- `kept_keys`: which keys of keyed metrics are kept;
- `dictionary`, `descriptions`: what each metric is, and where and when it has data;
- `plan`, `build`: what has to be made, and making it;
- `versions`: the versions in S3, of which one is current.
"""
