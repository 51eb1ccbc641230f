"""The drain: claim, convert, validate, publish, acknowledge; each step may be run again at any time."""
