"""Objects in S3: their keys, conditional puts, and records that are written once."""
