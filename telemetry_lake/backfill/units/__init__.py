"""The work on one unit of the archive, on any machine: copy, check, and leave out."""
