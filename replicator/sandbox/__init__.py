"""Throwaway servers, OpenDental-like data and a practice's day, for the demo and the tests.

servers    one MariaDB or PostgreSQL process, its data directory and its port
cluster    source, replica and analytics together, surviving the process that started them
schema     the tables, data the rows, workload the changes
"""
