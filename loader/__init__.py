"""Leg 2: the replica's binlog in on the left, rows in PostgreSQL's `raw` schema out on the right."""
