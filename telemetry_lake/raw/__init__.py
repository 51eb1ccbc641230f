"""What an ingest node hands over: submission paths, raw objects, and index messages that point to them."""
