"""Monitoring: what is measured, what it means, and the exporter that reads the facts."""
