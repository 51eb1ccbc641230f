"""Support that tests and benchmarks share: real servers, whole stacks, and pings of every kind."""
