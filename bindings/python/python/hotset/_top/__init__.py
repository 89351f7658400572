"""The live view of named caches: `python -m hotset top`, and what `hotset.dashboard` shows.

`_model` sums the caches of several processes and derives rates, `_format` writes numbers and names,
`_frame` lays out a screen, `_plain` and `_rich` draw it, `_view` handles keys, `_live` owns the
terminal, and `_command` is the command line. `_source` reads and clears caches through stats files.
"""
