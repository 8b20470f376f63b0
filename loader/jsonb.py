"""MySQL's JSON in, JSON text for PostgreSQL's jsonb out. Pure.

Only MySQL replicas need this: MariaDB's JSON is text. The binlog has it in its binary form, a
SELECT as text; both are the server's own text here, to the letter, so that a row is written
alike whichever way it came.
"""

from __future__ import annotations

import re

from loader.values import Faults, ValueFault, escaped
from replicator.binlog.jsonprinting import printed_json

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escape that begins with a backslash of its own: an even number of them stands before it."""


def json_text(column: str, data: bytes, faults: Faults) -> bytes | None:
    """COPY text of a binary JSON value; None, with a fault noted, for what jsonb cannot hold."""
    try:
        text = printed_json(data).encode()
    except ValueError:
        faults.append(ValueFault(column, data, "JSON that cannot be read"))
        return None
    return jsonb(column, text, faults)


def jsonb(column: str, text: bytes, faults: Faults) -> bytes | None:
    """COPY text of JSON that is text; None, with a fault noted, where it has a NUL."""
    if _NUL.search(text):
        faults.append(ValueFault(column, text, "NUL in JSON"))
        return None
    return escaped(text)
