"""Make stable.pings from live.pings: each document id once."""
