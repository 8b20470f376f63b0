"""When two rows are the same: the SQL that says so. Pure.

Every column is compared, NULLs are equal, and floats are compared by their bits, as -0.0 and
0.0 are two values that PostgreSQL calls equal.
"""

from __future__ import annotations

from psycopg import sql

from loader import schema
from loader.schema import RawTable

_BITWISE = {"real": "float4send", "double precision": "float8send"}


def same_values(shape: RawTable, left: str, right: str) -> sql.Composed:
    """Are all columns the same, and both rows deleted or neither?"""
    parts = []
    for column in (*shape.columns, *((schema.MARK,) if shape.soft else ())):
        ours, theirs = sql.Identifier(left, column.name), sql.Identifier(right, column.name)
        template = "{} IS NOT DISTINCT FROM {}"
        send = _BITWISE.get(column.type)
        if send:
            template = f"{send}({{}}) IS NOT DISTINCT FROM {send}({{}})"
        parts.append(sql.SQL(template).format(ours, theirs))
    return sql.SQL(" AND ").join(parts)
