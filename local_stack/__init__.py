"""The whole lake on one machine: real services on loopback under one supervisor."""
