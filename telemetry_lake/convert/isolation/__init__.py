"""Conversion in a process of its own, with limits: the last resort for pings that end the process."""
