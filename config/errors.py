"""What can go wrong, arranged by what the operator must do.

From the left come exceptions of drivers and of the operating system; to the
right goes one tree, by which the daemons decide between waiting and stopping:

    ReplicatorError
      Transient               retried with backoff; nobody is paged
        ConnectionLost        the server is away, or the network is
        ServerBusy            it answered "not now"
      Halt                    exit code 2; systemd leaves it down
        ConfigError           fix the environment
        PositionLost          the binlog we need was purged: resync
        SourceReset           the source went back in time: resync
        BinlogRefused         the server cannot send its own binlog from there
          BinlogTorn          a file breaks off within an event: its server crashed
        EventsLost            the server says that its binlog lacks events: resync
        UnknownEvent          an event we refuse to guess at
          ColumnsMissing      a row of which some is left out
        StatementFormat       rows were logged as statements
        ApplyConflict         the target holds rows that it should not hold
        SchemaDrift           the target's table has another shape than ours
        UnsupportedStatement  a schema change that we cannot carry over
        AlreadyRunning        a second daemon for the same leg
        CopyRefused           a table that cannot be copied exactly

`classify` is the one place that maps a driver's error to this tree. It never
repeats what a server says about a row: "Duplicate entry 'Smith' for key 'ux'"
becomes code 1062 and the key's name. Only messages that are known to hold
nothing but names are quoted. For the same reason `translated` raises with the
driver's exception suppressed, so that no traceback prints it either.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import psycopg
import pymysql.err

EXIT_HALT: Final = 2


class ReplicatorError(Exception):
    """Something that the pipeline knows how to name: `str()` says what, `hint` what to do."""

    remedy: ClassVar[str] = "See the log for what came before."

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.remedy


class Transient(ReplicatorError):
    """Goes away by itself; the caller waits and tries again."""

    remedy = "Nothing to do: it is retried until it works."


class ConnectionLost(Transient):
    """The server cannot be reached, or the connection to it broke."""

    remedy = "Check that the server runs and that host, port and firewall let us through."


class ServerBusy(Transient):
    """The server answered that it cannot serve us at this moment."""


class Halt(ReplicatorError):
    """Does not go away by itself: the daemon stops with exit code 2."""

    remedy = "Nothing was skipped: mend the cause, then start the service again."


class ConfigError(Halt):
    """A setting, an account or a grant is wrong; `faults` lists every one of them."""

    remedy = "Mend the setting in the environment or in .env, then start again."

    def __init__(self, message: str, hint: str = "", faults: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.faults = faults or (message,)


class PositionLost(Halt):
    """The server no longer has the binlog that we must read next."""

    remedy = "Copy everything again: replicator resync --all"


class SourceReset(Halt):
    """The source is not the server, or not in the state, that our position belongs to."""

    remedy = "If this server is the right one, copy everything again: replicator resync --all"


class BinlogRefused(Halt):
    """The server cannot read its own binlog where we must go on."""

    remedy = "See that server's error log, and its disk; then: replicator resync --all"


class BinlogTorn(BinlogRefused):
    """A binlog file ends in the middle of an event."""


class EventsLost(Halt):
    """The server wrote down that its binlog lacks changes that were made (INCIDENT)."""

    remedy = "Copy everything again: replicator resync --all"


class UnknownEvent(Halt):
    """A binlog event that we cannot read with certainty."""

    remedy = "Report the event; replicator resync --all goes on behind it."


class ColumnsMissing(UnknownEvent):
    """A row image leaves out columns of `table`: generated ones, which can be made, or others."""

    remedy = "See that the server logs whole rows (binlog_row_image), then resync the table."

    def __init__(self, message: str, hint: str = "", *, table: str = "") -> None:
        super().__init__(message, hint)
        self.table = table


class StatementFormat(Halt):
    """The source logged row changes as statements, which cannot be applied exactly."""

    remedy = "On the source: SET GLOBAL binlog_format = 'ROW'; then replicator resync the table."


class ApplyConflict(Halt):
    """A change does not fit the rows that are there: somebody else wrote to the target.

    `tables` are those that the refused statement changed, where that is known.
    """

    remedy = "Find out who wrote there, then: replicator resync the table."

    def __init__(self, message: str, hint: str = "", tables: Iterable[str] = ()) -> None:
        super().__init__(message, hint)
        self.tables = frozenset(tables)


class SchemaDrift(Halt):
    """A table on the target has another shape than the stream says."""

    remedy = "Copy the table again: replicator resync the table."


class UnsupportedStatement(Halt):
    """A schema change that cannot be carried over as it stands."""

    remedy = "Make the same change on the replica by hand, or resync the table."


class AlreadyRunning(Halt):
    """Another process already does this leg's work."""

    remedy = "Stop the other process first."


class CopyRefused(Halt):
    """A table that cannot be copied exactly under the present rules."""

    remedy = "Give the table a primary key, or exclude it in tables.toml."


PREFIXES: Final = {
    "source": "OPENDENTAL_SOURCE",
    "replica": "MYSQL_REPLICATION",
    "analytics": "POSTGRES_ANALYTICS",
}

# https://mariadb.com/kb/en/mariadb-error-code-reference/ and, for 2000-2999, the client's codes.
_MYSQL_LOST = frozenset({0, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031}) | frozenset(
    {2002, 2003, 2005, 2006, 2013, 2014, 2027, 2055}
)
_MYSQL_BUSY = frozenset(
    {1021, 1026, 1037, 1040, 1041, 1114, 1180, 1203, 1205, 1206, 1213, 1226, 1317, 1613, 1614}
) | frozenset({1836, 1969, 3024, 3058, 3572})
_MYSQL_ACCOUNT = frozenset({1045, 1130, 1251, 1698, 1862, 2049, 2054, 2059, 2061, 3118, 4151})
_MYSQL_GRANT = frozenset({1044, 1142, 1143, 1227, 1370})
_MYSQL_CONFLICT = frozenset({1022, 1032, 1062, 1169, 1216, 1217, 1451, 1452, 1557, 1586, 1761})
_MYSQL_DRIFT = frozenset({1054, 1105, 1136, 1146, 1535, 1677})
# Messages of these codes hold names, limits and states; never a value out of a row.
_MYSQL_ABOUT_NAMES = frozenset({1032, 1046, 1049, 1050, 1051, 1054, 1109, 1146, 1535, 1677})
_MYSQL_ABOUT_STATES = frozenset({1153, 1236, 1290, 1792, 2026, 3159})
_MYSQL_QUOTABLE = frozenset().union(
    _MYSQL_LOST, _MYSQL_BUSY, _MYSQL_ACCOUNT, _MYSQL_GRANT, _MYSQL_ABOUT_NAMES, _MYSQL_ABOUT_STATES
)
# How servers quote ENOSPC, and InnoDB's own word for it: (errno: 28 "No space left on device"),
# (Errcode: 28 …), Got error 28, (errno: 135 "No more room in record file").
_NO_SPACE = re.compile(r"\b(errno:|Errcode:|error) (28|135)\b")
_KEY_NAME = re.compile(r".*for key '([^']*)'\s*\Z", re.DOTALL)

_POSTGRES_LOST = ("08", "57P01", "57P02", "57P05")
_POSTGRES_BUSY = ("53", "57P03", "57014", "55P03", "55006", "40", "25006")
_POSTGRES_ACCOUNT = ("28", "3D000", "42501", "3F000")
_POSTGRES_DRIFT = ("42P01", "42703", "42804", "42P10")
_NETWORK_ERRNOS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}
)
# libpq reports a failed connection as text without a code; these are its own words.
_LIBPQ_ACCOUNT = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist"
    r"|SSL|certificate|sslmode|not permitted to log in|permission denied",
)
_LIBPQ_BUSY = re.compile(
    r"starting up|shutting down|too many (clients|connections)|connection slots are reserved"
    r"|recovery mode|not yet accepting connections"
)
_LIBPQ_LOST = re.compile(
    r"refused|timeout|timed out|time-out|could not translate|could not receive|could not send"
    r"|closed|unexpectedly|reset by peer|unreachable|no route|not known|name resolution"
    r"|lost|Broken pipe|consuming input failed|sending query failed|No such file"
    r"|no connection to the server|terminating connection|pipeline aborted|exit pipeline mode"
    r"|expected authentication request|received invalid|cannot allocate memory",
    re.IGNORECASE,
)
# TLS that broke off, or whose bytes were damaged on their way, rather than TLS that is set wrongly.
_LIBPQ_TLS_BROKEN = re.compile(
    r"SSL SYSCALL error|SSL connection has been closed|bad record mac|decryption failed"
    r"|unexpected eof|consuming input failed|sending query failed",
    re.IGNORECASE,
)


def classify(exc: BaseException, *, server: str) -> ReplicatorError:
    """Name what went wrong with `server`; what is not known to pass is a Halt.

    `server` is the label of a settings object, for instance "source db1:3306": its first word
    is the role. An error that is already ours comes back as it is, and SQLAlchemy's wrapping is
    taken off. The result holds no row value, no SQL text and no secret.
    """
    exc = _unwrapped(exc)
    if isinstance(exc, ReplicatorError):
        return exc
    if isinstance(exc, pymysql.err.Error):
        return _classify_mysql(exc, server)
    if isinstance(exc, psycopg.Error):
        return _classify_postgres(exc, server)
    if isinstance(exc, ssl.SSLError):
        return _classify_tls(exc, server)
    if isinstance(exc, ConnectionError | TimeoutError | socket.gaierror) or (
        isinstance(exc, OSError) and exc.errno in _NETWORK_ERRNOS
    ):
        return _lost(server, exc.strerror or type(exc).__name__)
    return Halt(f"{server}: unexpected {type(exc).__name__}", "Please report it with the log.")


@contextmanager
def translated(server: str) -> Iterator[None]:
    """Raise what the drivers raise inside as our own errors, their texts left behind.

    The driver's exception is suppressed rather than chained: it may quote a row.
    """
    try:
        yield
    except (pymysql.err.Error, psycopg.Error, OSError) as exc:
        raise classify(exc, server=server) from None


def _unwrapped(exc: BaseException) -> BaseException:
    original = getattr(exc, "orig", None)
    return original if isinstance(original, BaseException) else exc


def _role(server: str) -> str:
    return server.split(maxsplit=1)[0]


def _prefix(server: str) -> str:
    return PREFIXES.get(_role(server), PREFIXES["source"])


def _classify_tls(exc: ssl.SSLError, server: str) -> ReplicatorError:
    """A connection that ended, or was garbled, inside TLS is lost; the rest is settings."""
    why = getattr(exc, "verify_message", None)  # of a certificate: expired, unknown, another's
    reason = why or getattr(exc, "reason", None) or exc.strerror or type(exc).__name__
    ended = isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    if ended or "BAD_RECORD_MAC" in reason:
        return _lost(server, f"TLS connection broken: {reason}")
    return ConfigError(f"{server}: TLS failed: {reason}", _tls_hint(server))


def _tls_hint(server: str) -> str:
    prefix = _prefix(server)
    return f"Check {prefix}_SSL_MODE, _SSL_CA, _SSL_CERT and _SSL_KEY against the server's own TLS."


def _lost(server: str, reason: str) -> ConnectionLost:
    prefix = _prefix(server)
    hint = f"Check that the server runs, and {prefix}_HOST and {prefix}_PORT."
    return ConnectionLost(f"{server}: {reason}", hint)


def _classify_mysql(exc: pymysql.err.Error, server: str) -> ReplicatorError:
    code, text = _mysql_code_and_text(exc)
    said = f"{server}: {_mysql_wording(code, text)}"
    prefix = _prefix(server)
    original = getattr(exc, "original_exception", None)
    if isinstance(original, ssl.SSLError):
        return _classify_tls(original, server)
    if code == 2026:
        return ConfigError(f"{server}: TLS failed: {text}", _tls_hint(server))
    if code in _MYSQL_LOST:
        return _lost(server, _mysql_wording(code, text))
    if code in _MYSQL_BUSY or (code == 1290 and re.search(r"read[-_]only", text)):
        return ServerBusy(said)
    if _NO_SPACE.search(text):
        return ServerBusy(f"{server}: its disk is full (error {code})")
    remedy = _mysql_setting_to_mend(code, prefix)
    if remedy:
        return ConfigError(said, remedy)
    if code == 1236:
        return _classify_dump_refusal(said)
    if code == 1153:
        return Halt(said, "On that server: SET GLOBAL max_allowed_packet = 1073741824;")
    if code in _MYSQL_CONFLICT:
        return ApplyConflict(said)
    if code in _MYSQL_DRIFT:
        return SchemaDrift(said)
    return Halt(said, "The server's own error log tells more.")


def _mysql_setting_to_mend(code: int, prefix: str) -> str:
    if code == 1049:
        return f"Set {prefix}_DB to a database that this server has."
    if code == 3159:
        return f"Set {prefix}_SSL_MODE=required (or stricter)."
    if code in _MYSQL_ACCOUNT:
        return f"Check {prefix}_USER and {prefix}_PASSWORD."
    if code in _MYSQL_GRANT:
        return "Grant it to this account; the README lists what each account needs."
    return ""


def _mysql_code_and_text(exc: pymysql.err.Error) -> tuple[int, str]:
    if exc.args and isinstance(exc.args[0], int):
        return exc.args[0], str(exc.args[1]) if len(exc.args) > 1 else ""
    return -1, ""  # PyMySQL's own complaints carry no code; their text may quote arguments


def _mysql_wording(code: int, text: str) -> str:
    if code == 0:
        return "the connection is closed"
    if code < 0:
        return "the driver refused the call"
    if code in _MYSQL_QUOTABLE:
        return f"{text} (error {code})"
    key = _KEY_NAME.match(text)
    return f"error {code}" + (f" on key {key.group(1)}" if key else "")


def _classify_dump_refusal(said: str) -> ReplicatorError:
    """Tell apart the reasons behind error 1236, which the server gives in prose only."""
    lowered = said.lower()
    if "same server_uuid" in lowered or "same server_id" in lowered or "same server id" in lowered:
        return AlreadyRunning(said, "Another replica uses our server id: set REPLICATOR_SERVER_ID.")
    beyond = "impossible position" in lowered or "position > file size" in lowered
    if beyond or ("gtid" in lowered and "not in the" in lowered):
        return SourceReset(said)
    if "truncated in the middle of event" in lowered:
        return BinlogTorn(said)
    if "max_allowed_packet" in lowered:
        return BinlogRefused(
            said, "On that server: SET GLOBAL max_allowed_packet = 1073741824; and in its my.cnf."
        )
    if "first log file" in lowered or "purged" in lowered or "could not find" in lowered:
        return PositionLost(said)
    return BinlogRefused(said)


def _classify_postgres(exc: psycopg.Error, server: str) -> ReplicatorError:
    state = exc.sqlstate
    if state is None:
        return _classify_libpq(exc, server)
    said = f"{server}: {_postgres_wording(exc, state)}"
    prefix = _prefix(server)
    if state.startswith(_POSTGRES_LOST):
        return _lost(server, _postgres_wording(exc, state))
    if state.startswith(_POSTGRES_BUSY):
        return ServerBusy(said)
    if state.startswith(_POSTGRES_ACCOUNT):
        hint = f"Check {prefix}_USER, _PASSWORD, _DB and _SCHEMA, and what is granted to that user."
        return ConfigError(said, hint)
    if state.startswith("23"):
        return ApplyConflict(said)
    if state.startswith(_POSTGRES_DRIFT):
        return SchemaDrift(said)
    return Halt(said, "The server's own log tells more.")


def _postgres_wording(exc: psycopg.Error, state: str) -> str:
    """The error's class, code and the names that the server attached; never its message."""
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(exc).__name__).lower()
    diag = exc.diag
    named = {
        "table": diag.table_name,
        "column": diag.column_name,
        "constraint": diag.constraint_name,
    }
    places = "".join(f", {kind} {value}" for kind, value in named.items() if value)
    return f"{name} (SQLSTATE {state}{places})"


def _is_libpqs_own(exc: psycopg.Error) -> bool:
    """Did libpq, or psycopg, stop within an answer? A server's errors have a message in fields."""
    stopped = type(exc) in (psycopg.DatabaseError, psycopg.InternalError)
    return stopped and exc.diag.message_primary is None


def _classify_libpq(exc: psycopg.Error, server: str) -> ReplicatorError:
    """Errors of the connection itself: libpq's words, which know nothing of rows."""
    text = str(exc)
    prefix = _prefix(server)
    if _is_libpqs_own(exc):
        return _lost(server, "the server's answer makes no sense; hung up")
    if not isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        return Halt(f"{server}: the driver refused the call ({type(exc).__name__})")
    said = " ".join(text.split())
    if _LIBPQ_BUSY.search(text):
        return ServerBusy(f"{server}: {said}")
    if "cleartext password" in text:
        remedy = f"Let its pg_hba.conf say scram-sha-256, or set {prefix}_SSL_MODE=verify-full."
        return ConfigError(f"{server}: it asks for the password without encryption", remedy)
    if _LIBPQ_TLS_BROKEN.search(text):
        return _lost(server, said)
    if _LIBPQ_ACCOUNT.search(text) and "unexpectedly" not in text:
        hint = f"Check {prefix}_USER, {prefix}_PASSWORD, {prefix}_DB and {prefix}_SSL_MODE."
        return ConfigError(f"{server}: {said}", hint)
    if isinstance(exc, psycopg.errors.ConnectionTimeout) or _LIBPQ_LOST.search(text):
        return _lost(server, said)
    return Halt(f"{server}: {type(exc).__name__} without a code", "The server's log tells more.")
