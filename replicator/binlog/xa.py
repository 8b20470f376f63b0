"""The ids of XA transactions, as the binlog has them in two forms. Pure.

Left: XA_PREPARE events and the texts of XA statements. Right: one text for each id,
`X'<gtrid>',X'<bqual>',<format>` in small letters, however the server wrote it.

Sources: MariaDB `sql/log_event.h` (XA_prepare_log_event), `sql/xa.cc`; MySQL `control_events.h`.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from config.errors import UnknownEvent
from replicator.binlog.events import HEADER_LENGTH

_XID: Final = re.compile(
    rb"XA\s+\w+\s+X'([0-9A-F]*)'\s*,\s*X'([0-9A-F]*)'\s*,\s*(\d+)\s*\Z", re.IGNORECASE
)
_LONGEST: Final = 64
_HEAD: Final = struct.Struct("<BIII")


def xid_of_statement(statement: bytes) -> str | None:
    """The id that an XA COMMIT or XA ROLLBACK names; None where the text is of another form."""
    found = _XID.match(statement)
    if found is None:
        return None
    gtrid, bqual, number = found.groups()
    return _text(gtrid.decode().lower(), bqual.decode().lower(), int(number))


def read_xa_prepare(event: bytes) -> tuple[bool, str]:
    """(committed in one phase?, id) of an XA_PREPARE event."""
    body = event[HEADER_LENGTH:]
    if len(body) >= _HEAD.size:
        one_phase, number, gtrid_size, bqual_size = _HEAD.unpack_from(body)
        data = body[_HEAD.size : _HEAD.size + gtrid_size + bqual_size]
        fits = gtrid_size <= _LONGEST and bqual_size <= _LONGEST
        if fits and len(data) == gtrid_size + bqual_size:
            xid = _text(data[:gtrid_size].hex(), data[gtrid_size:].hex(), number)
            return bool(one_phase), xid
    raise UnknownEvent(
        "an XA_PREPARE event is cut short",
        hint="Check the binlog with mariadb-binlog/mysqlbinlog --verify-binlog-checksum.",
    )


def _text(gtrid: str, bqual: str, number: int) -> str:
    return f"X'{gtrid}',X'{bqual}',{number & 0xFFFF_FFFF}"
