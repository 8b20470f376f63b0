"""Hand binlog events to a server: within the statement, or by way of user variables.

Left: the events of one `BINLOG` statement. Right: the commands that carry them, to be sent
one behind the other. A few events stand in the statement itself, in base64. More of them
go into user variables first, as parameters of a prepared statement: MariaDB then need not
read them letter by letter as SQL, a fifth of its whole work with them; and what is cut
into two packets may be twice as long as `max_allowed_packet`. MySQL knows literals only.

`BINLOG @a, @b` takes the variables' values and leaves NULL, whatever comes of it then. So
if a SET fails, the BINLOG behind it finds NULL and fails as well: it can be sent at once.

Source: MariaDB `sql/sql_binlog.cc` (binlog_defragment); COM_STMT_PREPARE and
COM_STMT_EXECUTE in the MariaDB knowledge base, "Clientserver Protocol".
"""

from __future__ import annotations

import struct
from typing import Any

from config.driver import understood
from replicator.binlog.statement import binlog_statement, in_base64

Command = tuple[int, bytes]
"""A command's number and what follows it in its packet."""

_QUERY, _PREPARE, _EXECUTE = 0x03, 0x16, 0x17
_BY_VARIABLE = 32 << 10
"""Bytes of events from which on the variables are worth their two packets."""
_BLOB = b"\xfc\0"


class Delivery:
    """Of events over `connection`, on which nothing may be on its way at the first large one."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._statements: tuple[int, ...] | None = None

    def wants_quiet(self, events: bytes) -> bool:
        """Must nothing be on its way when the commands for these events are asked for?"""
        return self._statements is None and len(events) >= _BY_VARIABLE

    def commands(self, events: bytes) -> list[Command]:
        """What to send; the last one's answer tells whether the events were applied."""
        if len(events) < _BY_VARIABLE or not self._prepared():
            return [(_QUERY, binlog_statement(events))]
        half = len(events) // 6 * 3  # both texts together are the whole's: no padding in between
        first, second = self._prepared()
        return [
            _execution(first, events, 0, half),
            _execution(second, events, half, len(events)),
            (_QUERY, b"BINLOG @etl_events_1, @etl_events_2"),
        ]

    def _prepared(self) -> tuple[int, ...]:
        if self._statements is None:
            mariadb = "MariaDB" in self._connection.get_server_info()
            self._statements = (
                tuple(self._prepare(f"SET @etl_events_{n} = ?") for n in (1, 2)) if mariadb else ()
            )
        return self._statements

    def _prepare(self, statement: str) -> int:
        connection = self._connection
        connection._execute_command(_PREPARE, statement)
        with understood(connection):
            answer = connection._read_packet().get_all_data()
            number, _columns, parameters = struct.unpack_from("<IHH", answer, 1)
            for _ in range(parameters + 1):  # each one's definition, and an end
                connection._read_packet()
        return int(number)


def _execution(statement: int, events: bytes, start: int, end: int) -> Command:
    """COM_STMT_EXECUTE with one parameter, a blob: part of the events in base64."""
    length = (end - start + 2) // 3 * 4
    head = struct.pack("<IBI", statement, 0, 1) + b"\0\1" + _BLOB
    head += b"\xfe" + length.to_bytes(8, "little")
    return _EXECUTE, in_base64(events, start, end, head, b"")
