"""The command line of the lake, a module for each group of commands."""
