"""Leg 2: the replica's binlog in on the left, `raw` in PostgreSQL out on the right."""
