"""Making only those values of a ping that a script looks at: three devices behind one switch.

1. `value_use` reads the source of `map`, and finds out which of its arguments it uses and how.
2. `lazy_json` gives `map` a text that is not made yet, where that text goes nowhere but to `json.loads`, and
   lets the `json` of the script's modules parse it without making it.
3. `lazy_dict` stands in a parsed document where histograms are, and makes those that are looked at.

**The switch** is `MapTask.lazy`, on the command line `--no-lazy`. When it is off, `uses_of` answers that
`map` uses every argument as a whole. Then no source is analysed, no module of the script is changed, `value`
is a plain `str`, what `json.loads` makes of it a plain `dict`, and nothing else of this package runs.

**What breaks when it is off: nothing but the speed.** The output is the same (`tests/mapreduce/test_lazy.py`
runs scripts both ways). A script that uses no document has all of them read, most of a table's bytes, and
one that looks at a single field of each waits for the rest to be put together.
Try it off when a script behaves in a run as it does not by hand.
"""
