"""Spark programs over the lake's tables, each started by hand or by a DAG with the same arguments."""
