"""What the exporter reads, each source by itself: queue, batches, tables, works, Airflow, pages."""
