"""Open a server's binlog and read raw events from it, as a replica client does.

Left: a connection of PyMySQL's, used for login and the opening statements only.
Right: whole events as bytes, each checksum verified and cut off. Reading is our
own: one `recv` brings many events, and a time-out never loses half a packet. Plain
events, nearly all, are cut out by `frames`, compiled; the code here does the same for
each packet, and is alone where nothing could be compiled.

This module opens and closes; it never reconnects by itself. A dead link raises
`ConnectionLost`, and the daemon, which knows the stored position, opens anew.

Source: MariaDB knowledge base "Replication Protocol", MySQL internals
COM_REGISTER_SLAVE, COM_BINLOG_DUMP.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pymysql

from config.errors import ConnectionLost, ReplicatorError, UnknownEvent, classify
from replicator.binlog.events import HEADER_LENGTH, EventType, parse_rotate, server_version
from replicator.binlog.payload import unpack
from replicator.binlog.position import BinlogPosition

try:
    from replicator.binlog.frames import cut
except ImportError:  # built without a compiler: packet by packet, more slowly
    cut = None  # type: ignore[assignment]

_COM_BINLOG_DUMP = 0x12
_COM_REGISTER_SLAVE = 0x15
_TRANSACTION_PAYLOAD = int(EventType.TRANSACTION_PAYLOAD)
_FRAME_LIMIT = 0xFFFFFF
_EVENT_LIMIT = (1 << 30) + (1 << 24)
"""No server lets max_allowed_packet be larger than 1 GiB, so no event is."""
_RECEIVE_BYTES = 1 << 20
_UNPACKED_BYTES = 4 << 20
"""How much of a compressed transaction is handed over at once."""
MISSED_HEARTBEATS = 3
"""A link is dead when nothing, not even a heartbeat, came for this many periods."""


class BinlogStream:
    """One server's binlog, from a position on.

    `connect` opens a logged-in connection; `server` is the word for it in messages
    ("source" or "replica"); `server_id` must be ours alone among that server's replicas.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        server_id: int,
        heartbeat_seconds: float,
        name: str,
    ) -> None:
        self._connect = connect
        self._server_id = server_id
        self._heartbeat_seconds = heartbeat_seconds
        self._server = name
        self._connection: Any = None
        self._buffer = bytearray()
        self._checksums = True
        self._heard = 0.0
        self._unpacking: Iterator[bytes] | None = None
        """The rest of a compressed transaction; it comes before what the buffer holds."""
        self._broken: ReplicatorError | None = None
        """What is raised behind the events that came before it."""
        self.file = ""
        self.format_description = b""

    def open(self, position: BinlogPosition) -> None:
        """Ask for everything behind `position`."""
        self.close()
        self._connection = self._connect()
        try:
            self._prepare()
            self._send(
                _COM_REGISTER_SLAVE, struct.pack("<IBBBHII", self._server_id, 0, 0, 0, 0, 0, 0)
            )
            self._connection._read_ok_packet()
            dump = struct.pack("<IHI", position.offset, 0, self._server_id)
            self._send(_COM_BINLOG_DUMP, dump + position.file.encode("ascii"))
        except (pymysql.MySQLError, OSError) as error:
            raise self._failed(error) from None
        self.file = position.file
        self._buffer.clear()
        self._unpacking = None
        self._broken = None
        self._heard = time.monotonic()

    def _prepare(self) -> None:
        nanoseconds = int(self._heartbeat_seconds * 1e9)
        with self._connection.cursor() as cursor:
            cursor.execute("SET NAMES utf8mb4")
            for word in ("master", "source"):
                cursor.execute(f"SET @{word}_binlog_checksum = @@GLOBAL.binlog_checksum")
                cursor.execute(f"SET @{word}_heartbeat_period = {nanoseconds}")
            cursor.execute("SET @mariadb_slave_capability = 4")

    def _send(self, command: int, payload: bytes) -> None:
        packet = bytes([command]) + payload
        self._connection._next_seq_id = 0
        self._connection.write_packet(packet)

    def read(self, timeout: float) -> list[bytes]:
        """All whole events that have arrived, waiting up to `timeout` seconds for the first.

        Returns [] when none came in time; 0 takes what is there already. Raises
        `ConnectionLost` when the link is dead; what breaks is raised behind the events before it.
        """
        if self._broken is not None:
            raise self._broken
        events = self._take_frames()
        deadline = time.monotonic() + timeout
        while not events and self._receive(max(0.0, deadline - time.monotonic())):
            events = self._take_frames()
        if not events:
            self._check_alive()
        return events

    def _receive(self, timeout: float) -> bool:
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"the {self._server}'s binlog stream is not open", hint="")
        try:
            connection._sock.settimeout(timeout)
            data = connection._sock.recv(_RECEIVE_BYTES)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            raise self._failed(error) from None
        if not data:
            raise ConnectionLost(f"the {self._server} closed its binlog stream", hint="")
        self._buffer += data
        if len(self._buffer) > _EVENT_LIMIT:
            raise self._endless()
        self._heard = time.monotonic()
        if isinstance(connection._sock, ssl.SSLSocket):
            self._receive_records(connection._sock)
        return True

    def _receive_records(self, sock: ssl.SSLSocket) -> None:
        """All else that has arrived: TLS gives one record at a time, which is often one event.

        Whoever works on what `read` returns may commit after it, so small pieces cost dear.
        An error here will be met again by the next `recv`, when what came before it is taken.
        """
        enough = len(self._buffer) + _RECEIVE_BYTES
        with suppress(OSError):
            sock.settimeout(0)
            while len(self._buffer) < enough and (data := sock.recv(_RECEIVE_BYTES)):
                self._buffer += data

    def _check_alive(self) -> None:
        silent = time.monotonic() - self._heard
        if silent > self._heartbeat_seconds * MISSED_HEARTBEATS:
            raise ConnectionLost(
                f"the {self._server} sent nothing for {silent:.0f} s, not even a heartbeat",
                hint="",
            )

    def _take_frames(self) -> list[bytes]:
        """Cut the buffer into packets; what is not whole yet stays."""
        events: list[bytes] = []
        try:
            self._cut_frames(events)
        except ReplicatorError as error:
            if not events:
                raise
            self._broken = error
        return events

    def _cut_frames(self, events: list[bytes]) -> None:
        self._unpack(events)
        buffer, at, size = self._buffer, 0, len(self._buffer)
        view = memoryview(buffer)
        try:
            while self._unpacking is None:
                if cut is not None:
                    at = cut(buffer, at, self._checksums, events)
                if size - at < 4:
                    break
                end = at + 4 + int.from_bytes(view[at : at + 3], "little")
                if end - at - 4 == _FRAME_LIMIT:
                    payload, end = _joined_frames(view, at)
                    if payload is None:
                        break
                elif end > size:
                    break
                else:
                    payload = bytes(view[at + 4 : end])
                at = end
                event = self._event_of(payload)
                if event is None:
                    continue
                if event[4] == _TRANSACTION_PAYLOAD:
                    self._unpacking = unpack(event)
                    self._unpack(events)
                else:
                    events.append(event)
        finally:
            view.release()
            del buffer[:at]

    def _unpack(self, events: list[bytes]) -> None:
        """Append what comes next of a compressed transaction, which may be large."""
        if self._unpacking is None:
            return
        taken = 0
        for event in self._unpacking:
            events.append(event)
            taken += len(event)
            if taken >= _UNPACKED_BYTES:
                return
        self._unpacking = None

    def _event_of(self, payload: bytes) -> bytes | None:
        if not payload or payload[0] != 0:
            self._refused(payload)
        event = payload[1:]
        kind = event[4] if len(event) > 18 else 0
        if kind == EventType.FORMAT_DESCRIPTION:
            return self._describe(event)
        if self._checksums:
            body, checksum = event[:-4], event[-4:]
            if zlib.crc32(body) != int.from_bytes(checksum, "little"):
                raise self._corrupted()
            event = b"%b%b%b" % (body[:9], len(body).to_bytes(4, "little"), body[13:])
        if len(event) < HEADER_LENGTH:
            raise UnknownEvent(
                f"an event of {self.file} from the {self._server} is shorter than its header"
            )
        if kind == EventType.ROTATE:
            self.file = parse_rotate(event)[0]
        elif kind in (EventType.HEARTBEAT, EventType.HEARTBEAT_V2):
            return None
        return event

    def _describe(self, event: bytes) -> bytes:
        if not _has_checksum_byte(server_version(event)):
            self._checksums = False
            self.format_description = event + b"\0"
            return self.format_description
        if zlib.crc32(event[:-4]) != int.from_bytes(event[-4:], "little"):
            raise self._corrupted()
        algorithm = event[-5]
        if algorithm > 1:
            raise UnknownEvent(
                f"the {self._server}'s binlog uses checksum algorithm {algorithm}",
                hint="SET GLOBAL binlog_checksum = 'CRC32' on that server.",
            )
        self._checksums = algorithm == 1
        self.format_description = event[:-4]
        return self.format_description

    def _corrupted(self) -> ReplicatorError:
        return ConnectionLost(
            f"an event of {self.file} from the {self._server} fails its checksum; reading it again",
            hint="If this repeats, the binlog file is damaged on the server's disk.",
        )

    def _endless(self) -> ReplicatorError:
        return ConnectionLost(
            f"an event of {self.file} from the {self._server} is larger than any can be",
            hint="Check that it is a MySQL or MariaDB server that answers there.",
        )

    def _refused(self, payload: bytes) -> None:
        if payload[:1] == b"\xff":
            code = int.from_bytes(payload[1:3], "little")
            text = payload[9:].decode("utf-8", "replace")
            raise self._failed(pymysql.OperationalError(code, text))
        raise ConnectionLost(f"the {self._server} ended its binlog stream", hint="")

    def _failed(self, error: BaseException) -> ReplicatorError:
        return classify(error, server=self._server)

    @property
    def heard(self) -> float:
        """When the server was last heard (monotonic), heartbeats included."""
        return self._heard

    def interrupt(self) -> None:
        """From another thread: end a `read` that waits; it raises, and nothing is closed yet."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError, AttributeError):  # a broken link has no socket any more
                connection._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up; the server notices and ends its dump thread."""
        if self._connection is not None:
            self._connection._force_close()
            self._connection = None


def _joined_frames(view: memoryview, at: int) -> tuple[bytes | None, int]:
    """A payload of 16 MiB or more comes in several packets; (None, _) while it is not whole."""
    parts, size = [], len(view)
    while size - at >= 4:
        length = int.from_bytes(view[at : at + 3], "little")
        end = at + 4 + length
        if end > size:
            break
        parts.append(view[at + 4 : end])
        at = end
        if length < _FRAME_LIMIT:
            return b"".join(parts), at
    return None, at


def _has_checksum_byte(version: str) -> bool:
    """MariaDB from 5.3 and MySQL from 5.6.1 end the event with an algorithm and a checksum."""
    numbers = [
        int("".join(filter(str.isdigit, part)) or 0)
        for part in version.split("-", maxsplit=1)[0].split(".")
    ]
    return "MariaDB" in version or tuple(numbers[:3]) >= (5, 6, 1)
