"""The HTTP edge: takes pings, makes them durable before it answers 200, and ships them to S3.

The contract is docs/ingest_spec.md. One ping goes through these modules in this order: `edge` reads it
from a connection, `group_commit` makes it durable in a segment (`segment_writer`, `segment`), `ship`
turns the sealed segment (`spool`) into a raw object and its index message. `node` is the parent that
starts the processes, `worker` the process that owns connections.
"""
