"""A simulated fleet of Firefox and Glean clients that posts pings over HTTP; see `__main__` for the command.

`documents` makes the documents, `pings` decides what is sent, `sending` sends it as a real client would.
"""
