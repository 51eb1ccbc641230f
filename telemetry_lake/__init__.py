"""The core of the lake: what a ping, a raw object, a batch and a table are.

It knows nothing of Airflow and nothing of Spark, and it imports none of the other packages of this
project. `settings`, `object_keys`, `submission_path`, `failures`, `raw_object`, `index_message`,
`object_store` and `index_queue` are the light part, which the ingest server may import.
"""
