"""Leg 1: carries the source's committed row changes, unchanged, into the replica."""
