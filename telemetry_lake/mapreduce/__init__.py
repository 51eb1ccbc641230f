"""Map-reduce over pings, as analysts write it: a Python file with `map` and, if they want, `reduce`.

Everything here is plain Python over Arrow and knows no Spark: what a script is and how it travels
(`script`), which rows and columns it wants (`row_filter`, `value_use`), how a row becomes what `map` gets
(`documents`, `units`), in which order keys come (`key_order`), what `map` and `reduce` write
(`map_phase`, `reduce_phase`, `records`), and how the output appears (`output`). `jobs/mapreduce.py` hands the
parts to Spark. docs/mapreduce.md is the guide for analysts.
"""
