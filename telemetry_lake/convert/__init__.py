"""Conversion: bytes in, rows out. Every kind of ping, one way through (`converter`)."""
