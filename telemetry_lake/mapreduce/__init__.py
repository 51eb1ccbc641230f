"""Map-reduce over pings, as analysts write it: a Python file with `map` and, if they want, `reduce`.

Everything here is plain Python over Arrow and knows no Spark. In the order in which a run passes it:

- what a run can be asked for (`form`), its preparation (`requests`) and repetition (`schedules`);
- the script and how it travels (`script/`);
- which rows and columns are read (`reading/`), and which values of them are made (`lazy/`);
- the calls of `map` (`map_phase`), the pairs that it writes (`pairs`) and their order (`key_order`);
- the calls of `reduce` (`reduce_phase`), records of output (`records`) and their file (`output`).

Between processes objects travel as `pickles`, and what came of the calls as `summaries`. `jobs/mapreduce.py`
hands the parts to Spark. docs/mapreduce.md is the guide for analysts.
"""
