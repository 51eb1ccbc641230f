"""The operations page: the way of a ping with the figures of now, what is red and since when, and what to do.

- `reading`: the text of `/metrics`, and what Prometheus' HTTP API answers, as values;
- `watch`: the thread that reads both, and the summary of volumes, and keeps what it read last;
- `parts`: the parts of the way of a ping, and which metrics are about each;
- `shown`: what a page shows of a look: figures with their age, states, alarms, tables;
- `picture`, `charts`: geometry of the pictures, which templates write as SVG;
- `runbooks`: the sections of docs/runbooks.md;
- `routes`, `section`: the pages.

Nothing is judged here: what is red is what Prometheus says of the rules in `monitoring/`.
"""
