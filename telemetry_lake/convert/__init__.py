"""Conversion: bytes in, rows out. Every kind of ping, one way through (`converter`)."""

from telemetry_lake.convert.converter import Conversion, Converter, Origin, Received
from telemetry_lake.convert.lift import restore_document

__all__ = ["Conversion", "Converter", "Origin", "Received", "restore_document"]
