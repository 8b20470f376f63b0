"""Rows that PostgreSQL refuses: told from those around them, kept aside, tried again."""
