"""A whole lake in one process, deterministic from a seed: the pipeline's own code over simulated services.

Real servers cannot be stopped between any two calls, and clocks of days cannot be waited for. Here the drain,
the reconciler, replays and maintenance run their production code over an S3, an SQS and a catalog that are
plain Python, on a clock that jumps. At every call a process may be killed, a service unavailable, or an
answer lost, and any other process may go first.

- `world`: the clock, the scheduler of processes, and the faults of a seed;
- `services`: the object store, the queues and the catalog;
- `lake`: the processes of the pipeline, and the account of every acknowledged ping;
- `scenario`: what happens in a world, drawn from its seed; running it, and shrinking one that fails.
"""
