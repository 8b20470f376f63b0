"""The rows of one SELECT as the bytes in which the server sent them.

From the left comes a connection and a query; to the right go blocks of whole row
packets, each with its four-byte header, for a kernel that walks them itself. Python
looks at the column definitions and at how a result ends, never at a row: the socket is
read in large pieces, and each piece is cut behind its last whole packet.

A result's end or an error in its middle is told from a row by its first byte and its
length, in both protocols: a row of the text protocol that begins with 0xfe holds a value
of 16 MiB or more, a row of the binary protocol begins with zero.

Formats: MariaDB `sql/protocol.cc`, `sql/net_serv.cc`; MySQL's manual, "Client/Server
Protocol", COM_QUERY and COM_STMT_EXECUTE responses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import pymysql
from pymysql.constants import CR
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from config import driver
from config.driver import understood

_COM_QUERY: Final = 3
_COM_STMT_PREPARE, _COM_STMT_EXECUTE, _COM_STMT_CLOSE = 22, 23, 25
_MORE_RESULTS: Final = 8
_FRAME: Final = 0xFFFFFF
_GIANT: Final = b"\xff\xff\xff\x00"
_MOST_COLUMNS: Final = 0xFFFF
_READ_AHEAD: Final = 64 << 10
"""More than a buffered reader holds, and than there is room for at any read."""
BLOCK_BYTES: Final = 1 << 20

Cut = tuple[int, int, int]
"""The end of the last whole row packet, the next sequence number, and what stands there."""
MORE, ENDED, GIANT, MISNUMBERED = range(4)
"""What stands behind the rows cut: an unfinished packet, the result's end, a frame of a packet
of 16 MiB or more, a packet out of its turn."""


def python_cut(buffer: bytearray, start: int, end: int, sequence: int) -> Cut:
    """Walk the packets of `buffer` from `start`, which is a packet's first byte, to `end`."""
    at = start
    while end - at >= 4:
        length = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
        if buffer[at + 3] != sequence:
            return at, sequence, MISNUMBERED
        if length == _FRAME:
            return at, sequence, GIANT
        if end - at - 4 < length:
            break
        if length and (buffer[at + 4] == 0xFF or (buffer[at + 4] == 0xFE and length < 9)):
            return at, sequence, ENDED
        at += 4 + length
        sequence = (sequence + 1) & 0xFF
    return at, sequence, MORE


def _best_cut() -> Callable[[bytearray, int, int, int], Cut]:
    try:
        from replicator.binlog.packetcut import cut  # noqa: PLC0415 - may not have been built
    except ImportError:
        return python_cut
    return cut


def is_giant(block: bytes) -> bool:
    """Is the block one row of 16 MiB or more, its frames joined behind four header bytes?"""
    return block.startswith(_GIANT)


class ResultSet:
    """The rows of one SELECT, unread by Python.

    The constructor sends the query and reads the column definitions; `blocks` gives the rows.
    Errors are PyMySQL's, at whatever point the server or the link gives them. Nothing else may
    be asked of the connection until the rows are read to their end or `close` was called.
    """

    def __init__(
        self,
        connection: pymysql.Connection[Any],
        query: str | bytes,
        *,
        block_bytes: int = BLOCK_BYTES,
        binary: bool = False,
    ) -> None:
        """`binary` asks for the binary protocol's rows; `query` then has no parameters."""
        self._connection = cast("Any", connection)
        self._block_bytes = block_bytes
        self._cut = _best_cut()
        self._statement = b""
        self._ended = False
        self._buffer = bytearray(block_bytes + (_READ_AHEAD))
        self._start = self._end = 0
        self._behind_reader = False
        if isinstance(query, str):
            query = query.encode(self._connection.encoding)
        try:
            with understood(self._connection):
                if binary:
                    self._prepare(query)
                else:
                    self._connection._execute_command(_COM_QUERY, query)
                self.fields = self._read_head()
        except pymysql.MySQLError:
            self._ended = True  # the connection is as good as before, or closed
            self._close_statement()
            raise
        except BaseException:
            self.close()
            raise
        self.columns = len(self.fields)

    def blocks(self) -> Iterator[bytes]:
        """Whole row packets in order, about `block_bytes` a piece, or one giant row's."""
        while not self._ended:
            try:
                with understood(self._connection):
                    block = self._next_block()
            except BaseException:
                self.close()
                raise
            if block:
                yield block

    def close(self) -> None:
        """Done with it; rows that were not read cost the connection, which is closed then."""
        if not self._ended:
            self._ended = True
            self._connection._force_close()

    def __enter__(self) -> ResultSet:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- the head ------------------------------------------------------------------------

    def _prepare(self, query: bytes) -> None:
        connection = self._connection
        connection._execute_command(_COM_STMT_PREPARE, query)
        packet = connection._read_packet()
        status, number, columns, parameters = struct.unpack_from("<BIHH", packet.get_all_data())
        if status or parameters or not columns:
            connection._force_close()
            raise pymysql.InterfaceError(0, "not a query without parameters")
        for _ in range(columns + 1):  # their definitions, which come again, and the end of these
            connection._read_packet()
        self._statement = struct.pack("<I", number)
        connection._execute_command(_COM_STMT_EXECUTE, self._statement + b"\0\1\0\0\0")

    def _read_head(self) -> tuple[FieldDescriptorPacket, ...]:
        connection = self._connection
        head = connection._read_packet()
        if head.is_ok_packet():
            raise pymysql.InterfaceError(0, "the statement gives no rows")
        if head.is_load_local_packet():
            connection._force_close()
            raise pymysql.InterfaceError(0, "the statement gives no rows")
        count = head.read_length_encoded_integer()
        if count > _MOST_COLUMNS:
            raise self._lost("more columns than a result can have")
        fields = tuple(connection._read_packet(FieldDescriptorPacket) for _ in range(count))
        if not connection._read_packet().is_eof_packet():
            raise pymysql.InternalError("the column definitions do not end where they should")
        return fields

    # --- the rows ------------------------------------------------------------------------

    def _next_block(self) -> bytes:
        """Rows of about a block's size; none where the next packet is the result's end."""
        connection, buffer = self._connection, self._buffer
        cut, sequence = self._start, connection._next_seq_id
        while True:
            cut, sequence, state = self._cut(buffer, cut, self._end, sequence)
            connection._next_seq_id = sequence
            if state == MISNUMBERED:
                raise self._lost("packets out of order")
            if state != MORE or cut - self._start >= self._block_bytes:
                break
            cut -= self._make_room()
            self._fill()
        block = bytes(memoryview(buffer)[self._start : cut])
        self._start = cut
        if not block and state == GIANT:
            return self._giant_row()
        if not block:
            self._finish(self._packet())
        return block

    def _make_room(self) -> int:
        """Room behind the end; by how much all that is unread moved to the front for it."""
        if len(self._buffer) - self._end >= 64 << 10:
            return 0
        moved, unread = self._start, self._end - self._start
        self._buffer[:unread] = self._buffer[moved : self._end]
        self._start, self._end = 0, unread
        if len(self._buffer) - unread < _READ_AHEAD:
            self._buffer.extend(bytes(len(self._buffer)))
        return moved

    def _fill(self) -> None:
        """Read what the socket has, at least a byte."""
        try:
            with memoryview(self._buffer) as view, view[self._end :] as room:
                count = self._receive(room)
        except OSError as error:
            raise self._lost(str(error)) from None
        if not count:
            raise self._lost("the server closed the connection")
        self._end += count

    def _receive(self, room: memoryview) -> int:
        """One read into `room`: first of what PyMySQL's reader had read ahead, then past it."""
        stream = self._connection._rfile
        if self._behind_reader:
            count: int = stream.raw.readinto(room)
            return count
        ahead = stream.read1(min(len(room), _READ_AHEAD))
        self._behind_reader = True
        room[: len(ahead)] = ahead
        return len(ahead)

    def _take(self, count: int) -> bytearray:
        """Exactly so many bytes."""
        taken = self._buffer[self._start : min(self._end, self._start + count)]
        self._start += len(taken)
        if len(taken) == count:
            return taken
        have = len(taken)
        taken.extend(bytes(count - have))
        try:
            with memoryview(taken) as view:
                while have < count:
                    with view[have:] as room:
                        got = self._receive(room)
                    if not got:
                        raise self._lost("the server closed the connection")
                    have += got
        except OSError as error:
            raise self._lost(str(error)) from None
        return taken

    def _packet(self, *, joined: bytes = b"") -> bytes:
        """The next packet's payload, its frames joined, behind `joined`."""
        connection = self._connection
        payload = bytearray(joined)
        length = _FRAME
        while length == _FRAME:
            header = self._take(4)
            length = int.from_bytes(header[:3], "little")
            if header[3] != connection._next_seq_id:
                raise self._lost("packets out of order")
            connection._next_seq_id = (header[3] + 1) & 0xFF
            if len(payload) + length > driver.ANSWER_BYTES:
                raise self._lost("a row larger than any can be")
            payload += self._take(length)
        return bytes(payload)

    def _giant_row(self) -> bytes:
        return self._packet(joined=_GIANT)

    # --- the end -------------------------------------------------------------------------

    def _finish(self, payload: bytes) -> None:
        """The packet behind the last row: the end, or what went wrong."""
        packet = MysqlPacket(payload, self._connection.encoding)
        if self._start != self._end:
            raise self._lost("more than the result")
        if packet.is_error_packet():
            self._ended = True
            self._close_statement()
            packet.raise_for_error()
        status = int.from_bytes(payload[3:5], "little")
        if status & _MORE_RESULTS:
            raise self._lost("more than one result")
        self._connection.server_status = status
        self._ended = True
        self._close_statement()

    def _close_statement(self) -> None:
        if self._statement and self._connection.open:
            self._connection._execute_command(_COM_STMT_CLOSE, self._statement)
            self._statement = b""

    def _lost(self, why: str) -> pymysql.OperationalError:
        self._connection._force_close()
        return pymysql.OperationalError(
            CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({why})"
        )
