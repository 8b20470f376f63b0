"""PyMySQL's connection, for servers that may say anything.

Left: bytes of whoever answers at that port. Right: PyMySQL's results, or its own
`OperationalError` 2027 (CR_MALFORMED_PACKET), never an error out of its parser's depths, and
never an answer without bounds: PyMySQL joins packets, and keeps rows, for as long as a
server sends them. Nor is the password handed to a server that asks for it in plain words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pymysql
from pymysql import err
from pymysql.protocol import MysqlPacket

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    _PyMySQL = pymysql.Connection[Cursor]
else:
    _PyMySQL = pymysql.Connection

MALFORMED: Final = 2027
LOGIN_BYTES: Final = 1 << 20
"""All that a server says until we are logged in, several times over."""
ANSWER_BYTES: Final = (1 << 30) + (1 << 24)
"""One packet, or one answer that is kept whole: no row is larger than 1 GiB."""

_OBJECT_BYTES: Final = 256
"""What becomes of half a packet, its header or its body, when it is kept as a row's values."""

SENSELESS: Final = (
    *(AssertionError, AttributeError, LookupError, OverflowError, RuntimeError, TypeError),
    *(ValueError, struct.error),
)
"""What PyMySQL raises where an answer is not what it looked like."""
_IN_PLAIN_WORDS: Final = (b"mysql_clear_password", b"mysql_old_password", b"dialog")


class GuardedConnection(_PyMySQL):
    """See the module."""

    _limit = LOGIN_BYTES
    _answered = 0
    _keeping = False
    """Is an answer being read that is kept whole?"""

    def connect(self, sock: Any = None) -> None:
        self._limit = LOGIN_BYTES
        try:
            super().connect(sock)
        except (*SENSELESS, err.InternalError) as error:
            raise self._malformed(error) from None
        finally:
            self._limit = ANSWER_BYTES

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        if not self._keeping:
            self._answered = 0
        try:
            return super()._read_packet(packet_type)  # type: ignore[no-untyped-call]
        except SENSELESS as error:
            raise self._malformed(error) from None
        except err.InternalError as error:
            if error.args and isinstance(error.args[0], int):
                raise  # the server's own word
            raise self._malformed(error) from None  # packets out of their order

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._answered, self._keeping = 0, not unbuffered
        try:
            return super()._read_query_result(unbuffered)  # type: ignore[misc]
        except SENSELESS as error:
            raise self._malformed(error) from None
        finally:
            self._keeping = False

    def _read_bytes(self, num_bytes: int) -> bytes:
        self._answered += num_bytes + _OBJECT_BYTES
        if self._answered > self._limit:
            raise self._malformed(OverflowError())
        read: bytes = super()._read_bytes(num_bytes)  # type: ignore[misc]
        return read

    def _process_auth(self, plugin_name: Any, auth_packet: Any, handler: Any = None) -> Any:
        if plugin_name in _IN_PLAIN_WORDS and not vars(self).get("_secure"):
            self._force_close()  # type: ignore[attr-defined]
            raise err.OperationalError(
                2061, f"the server asks for the password without encryption: {plugin_name!r}"
            )
        return super()._process_auth(plugin_name, auth_packet, handler)  # type: ignore[misc]

    def _malformed(self, error: BaseException) -> err.OperationalError:
        return _malformed(self, error)


@contextmanager
def understood(connection: Any) -> Iterator[None]:
    """An answer is read by hand: where it makes no sense we hang up, with the same error."""
    try:
        yield
    except SENSELESS as error:
        raise _malformed(connection, error) from None


def _malformed(connection: Any, error: BaseException) -> err.OperationalError:
    connection._force_close()
    what = "has no end" if isinstance(error, OverflowError) else "makes no sense"
    return err.OperationalError(MALFORMED, f"the server's answer {what}; hung up")
