"""Benchmarks: ratios measured in one run on one machine, which anyone can repeat.

`python -m bench` runs them all and `python -m bench decode` some. Standard output has a
table for people and, in lines that begin with `{`, one JSON object for each figure.
"""
