"""Finds out which functions of a program are worth caching, by recording their calls.

`python -m hotset advise script.py` and `hotset.advise()` record with `record`, which describes
arguments and results with `observe` and never calls code of the program. `curve` replays the
arguments of each function through caches of several sizes, `judge` decides and writes the line,
`report` and `svg` print, `run` runs a program as Python itself does, and `verify` runs it again
with the decorators applied.
"""
