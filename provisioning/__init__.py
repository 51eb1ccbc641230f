"""The whole lake on AWS, from an operator's machine: `python -m provisioning cost`. See docs/cost.md."""
