"""Binlog events made by hand, as MariaDB and MySQL write them; ends are counted like a file's.

From the left come the few facts that a test is about; to the right go raw events
without checksum, as `stream` hands them over.
"""

from __future__ import annotations

import struct
import zlib

from replicator.binlog.events import EventType, with_header

SERVER = 1
SECOND = 1_700_000_000


class Log:
    """A binlog file that grows: every event ends where the next begins."""

    def __init__(self, at: int = 4) -> None:
        self.at = at

    def add(self, kind: int, body: bytes, *, flags: int = 0, timestamp: int = SECOND) -> bytes:
        event = with_header(kind, timestamp, SERVER, flags, body)
        self.at += len(event) + 4  # the checksum that the stream takes off
        return event[:13] + self.at.to_bytes(4, "little") + event[17:]

    def unsaid(self, event: bytes) -> bytes:
        """The event as MariaDB 11.8 writes it inside a group: its end is zero."""
        return event[:13] + bytes(4) + event[17:]

    def mariadb_gtid(self, sequence: int, *, flags: int = 0, domain: int = 0) -> bytes:
        body = struct.pack("<QIB", sequence, domain, flags) + bytes(6)
        return self.add(EventType.MARIADB_GTID, body)

    def mysql_gtid(self, number: int, committed_us: int | None = None) -> bytes:
        body = b"\1" + bytes(range(16)) + struct.pack("<Q", number)
        if committed_us is not None:
            body += b"\2" + struct.pack("<QQ", 0, 1) + committed_us.to_bytes(7, "little")
        return self.add(EventType.GTID, body)

    def query(self, sql: bytes, *, database: bytes = b"opendental", error: int = 0) -> bytes:
        return self.add(EventType.QUERY, query_body(sql, database=database, error=error))

    def table_map(
        self, table_id: int, table: bytes = b"patient", database: bytes = b"opendental"
    ) -> bytes:
        return self.add(EventType.TABLE_MAP, table_map_body(table_id, table, database))

    def rows(
        self,
        table_id: int,
        data: bytes = b"\xff\x00\x01\x00\x00\x00",
        *,
        kind: int = EventType.WRITE_ROWS_V1,
        flags: int = 1,
    ) -> bytes:
        return self.add(kind, rows_body(table_id, data, flags=flags))

    def xid(self) -> bytes:
        return self.add(EventType.XID, bytes(8))

    def rotate(self, file: bytes, *, flags: int = 0) -> bytes:
        return self.add(EventType.ROTATE, struct.pack("<Q", 4) + file, flags=flags)

    def format_description(self, version: bytes = b"10.11.6-MariaDB-log") -> bytes:
        return self.add(EventType.FORMAT_DESCRIPTION, format_description_body(version))


def query_body(
    sql: bytes, *, database: bytes = b"opendental", error: int = 0, status: bytes = b""
) -> bytes:
    head = struct.pack("<IIBHH", 7, 0, len(database), error, len(status))
    return head + status + database + b"\0" + sql


def table_map_body(table_id: int, table: bytes, database: bytes) -> bytes:
    """A table of one nullable INT column."""
    return b"".join(
        (
            table_id.to_bytes(6, "little") + b"\1\0",
            bytes([len(database)]) + database + b"\0",
            bytes([len(table)]) + table + b"\0",
            b"\1\3",
            b"\0",
            b"\1",
        )
    )


def rows_body(table_id: int, data: bytes, *, flags: int = 1) -> bytes:
    return table_id.to_bytes(6, "little") + flags.to_bytes(2, "little") + b"\1" + data


def format_description_body(version: bytes, algorithm: int = 1) -> bytes:
    """As the stream hands it over: the checksum algorithm's byte last."""
    return struct.pack("<H50sIB", 4, version, SECOND, 19) + bytes(171) + bytes([algorithm])


def artificial(kind: int, body: bytes) -> bytes:
    """An event that the server makes up for the stream: it has no end in any file."""
    return with_header(kind, 0, SERVER, 0x20, body)


def compressed(data: bytes) -> bytes:
    """A block as MariaDB's binlog_buf_compress writes it."""
    length = len(data).to_bytes(4, "big").lstrip(b"\0")
    return bytes([0x80 | len(length)]) + length + zlib.compress(data)


def with_checksum(event: bytes) -> bytes:
    """The event as it stands on the wire: its length counts the checksum that ends it."""
    whole = event[:9] + (len(event) + 4).to_bytes(4, "little") + event[13:]
    return whole + zlib.crc32(whole).to_bytes(4, "little")
