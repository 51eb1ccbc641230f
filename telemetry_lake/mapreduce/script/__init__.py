"""The script of an analyst: where it comes from, how it travels, and which values it uses."""
