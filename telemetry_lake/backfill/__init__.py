"""The backfill: the historic archive of the previous Hadoop backend becomes rows of the lake."""
