"""MySQL's binary JSON in, JSON text for PostgreSQL's jsonb out; mysql-replication parses it. Pure.

Only MySQL replicas need this: MariaDB's JSON is text.
"""

from __future__ import annotations

import json
import struct
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from pymysqlreplication.json_binary import parse_json

from loader.values import Faults, ValueFault, escaped


def json_text(column: str, data: bytes, faults: Faults) -> bytes | None:
    """COPY text of a binary JSON value; None, with a fault noted, for what jsonb cannot hold."""
    if not data:
        return b"null"
    try:
        value = parse_json(data[0], data[1:])
        text = _rendered(value)
    except (ValueError, IndexError, KeyError, TypeError, struct.error):
        faults.append(ValueFault(column, data, "JSON that cannot be read"))
        return None
    if "\\u0000" in text:
        faults.append(ValueFault(column, data, "NUL in JSON"))
        return None
    return escaped(text.encode())


def _rendered(value: Any) -> str:
    match value:
        case dict():
            members = (f"{_rendered(key)}: {_rendered(item)}" for key, item in value.items())
            return "{" + ", ".join(members) + "}"
        case list():
            return "[" + ", ".join(map(_rendered, value)) + "]"
        case bytes():
            return json.dumps(value.decode(), ensure_ascii=False)
        case Decimal():
            return str(value)
        case datetime():
            return json.dumps(value.isoformat(" ", "microseconds"))
        case date() | time() | timedelta():
            return json.dumps(str(value))
        case _:
            return json.dumps(value, ensure_ascii=False)
