"""Where the code of analysts runs: a box without a key, a network or the files of this machine.

- `box`: the box, and what happens where there is none;
- `door`, outside, and `inside`: the way by which a box reads the files of tables, and writes its result;
- `boxed_run`: a whole map-reduce job in a box;
- `try_it`: a script on a thousand pings (`sample`), in a box of its own (`trial`), before it is submitted.
"""
