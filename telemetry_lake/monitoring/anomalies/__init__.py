"""Anomalies: what is unusual in volumes, errors and distributions, since when, and who is told of it.

- `series`, `rhythm`, `volumes`, `days`: pings of now against those of the weeks before;
- `errors`: rejected pings against limits;
- `distributions`: samples of new builds and days against those before;
- `findings`: what opens an anomaly, and what closes it;
- `state`, `rows`, `notices`: what is remembered, written down and sent, each once;
- `volume_source`, `distribution_source`: where the figures come from;
- `look`: one look at all of it.

All but the last three lines is arithmetic without input and output. `docs/anomalies.md` is about it.
"""
