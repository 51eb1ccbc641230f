"""The fast way of reading histograms: compiled code that reads the text of a few hundred pings at a time.

In the order in which a document passes: `column` calls `document`, which finds the histograms and reads each
with `histogram`; `settle` takes out those that the definitions do not know. Below them are the tables of
names and ranges (`lookup`), the smaller pieces of a text (`scanner`), and words of eight bytes (`swar`).
`layout` says what all arrays hold.
"""
