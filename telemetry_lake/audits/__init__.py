"""Audits: what checks found in batches and in dates, and the pages that show both.

- `dates`: the records of what the checks of a date found; `drain.audit` has those of batches;
- `pages`: the pages of one day and of one audit, as HTML.
"""
