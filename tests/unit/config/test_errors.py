"""Classification: the drivers' errors become ours, and rows stay out of them."""

from __future__ import annotations

import errno
import pickle
import socket
import ssl
import traceback

import psycopg
import pymysql.err
import pytest
import sqlalchemy.exc

from config import errors
from config.errors import Halt, ReplicatorError, Transient, classify, translated

SOURCE, REPLICA, ANALYTICS = "source db1:3306", "replica db2:3305", "analytics db3:5432"
PATIENT = "Smith-Jones"


def mysql(code: int, text: str = "") -> pymysql.err.Error:
    return pymysql.err.OperationalError(code, text)


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (mysql(2003, "Can't connect"), errors.ConnectionLost),
        (mysql(2006), errors.ConnectionLost),
        (mysql(2013, "Lost connection"), errors.ConnectionLost),
        (mysql(1053, "Server shutdown in progress"), errors.ConnectionLost),
        (mysql(1927, "Connection was killed"), errors.ConnectionLost),
        (pymysql.err.InterfaceError(0, ""), errors.ConnectionLost),
        (mysql(1040, "Too many connections"), errors.ServerBusy),
        (mysql(1205, "Lock wait timeout exceeded"), errors.ServerBusy),
        (mysql(1213, "Deadlock found"), errors.ServerBusy),
        (mysql(1290, "running with the --read-only option"), errors.ServerBusy),
        (mysql(1114, "The table 't' is full"), errors.ServerBusy),
        (mysql(1005, 'Can\'t create table `t` (errno: 135 "No more room")'), errors.ServerBusy),
        (mysql(1030, "Got error 28 from storage engine"), errors.ServerBusy),
        (mysql(1290, "running with the --secure-file-priv option"), Halt),
        (mysql(1045, "Access denied for user 'u'@'h'"), errors.ConfigError),
        (mysql(1049, "Unknown database 'x'"), errors.ConfigError),
        (mysql(1142, "SELECT command denied"), errors.ConfigError),
        (mysql(1227, "Access denied; you need"), errors.ConfigError),
        (mysql(2026, "SSL connection error"), errors.ConfigError),
        (mysql(1236, "Could not find first log file name"), errors.PositionLost),
        (mysql(1236, "Client requested master to start from impossible position"), None),
        (
            mysql(1236, "Client requested source to start replication from position > file size"),
            errors.SourceReset,
        ),
        (mysql(1236, "A slave with the same server_uuid/server_id"), errors.AlreadyRunning),
        (mysql(1236, "log event entry exceeded max_allowed_packet"), errors.BinlogRefused),
        (mysql(1236, "binlog truncated in the middle of event"), errors.BinlogTorn),
        (mysql(1032, "Can't find record in 'patient'"), errors.ApplyConflict),
        (mysql(1062, f"Duplicate entry '{PATIENT}' for key 'x'"), errors.ApplyConflict),
        (mysql(1146, "Table 'a.b' doesn't exist"), errors.SchemaDrift),
        (mysql(9999, PATIENT), Halt),
        (pymysql.err.ProgrammingError(f"no code, {PATIENT}"), Halt),
    ],
)
def test_mysql_errors_are_told_apart_by_code(
    exc: BaseException, kind: type[ReplicatorError] | None
) -> None:
    assert type(classify(exc, server=SOURCE)) is (kind or errors.SourceReset)


def postgres(sqlstate: str, text: str = "") -> psycopg.Error:
    return psycopg.errors.lookup(sqlstate)(text)


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (postgres("08006"), errors.ConnectionLost),
        (postgres("57P01"), errors.ConnectionLost),
        (postgres("57P03"), errors.ServerBusy),
        (postgres("53300"), errors.ServerBusy),
        (postgres("53100"), errors.ServerBusy),
        (postgres("40P01"), errors.ServerBusy),
        (postgres("40001"), errors.ServerBusy),
        (postgres("55P03"), errors.ServerBusy),
        (postgres("25006"), errors.ServerBusy),
        (postgres("28P01"), errors.ConfigError),
        (postgres("3D000"), errors.ConfigError),
        (postgres("42501"), errors.ConfigError),
        (postgres("23505", f"Key (LName)=({PATIENT}) already exists"), errors.ApplyConflict),
        (postgres("42P01"), errors.SchemaDrift),
        (postgres("22021", f"invalid byte sequence {PATIENT}"), Halt),
        (psycopg.OperationalError("connection failed: Connection refused"), errors.ConnectionLost),
        (psycopg.OperationalError("the connection is closed"), errors.ConnectionLost),
        (
            psycopg.OperationalError("flush request failed: no connection to the server"),
            errors.ConnectionLost,
        ),
        (
            psycopg.OperationalError("flushing failed: FATAL:  terminating connection"),
            errors.ConnectionLost,
        ),
        (psycopg.errors.PipelineAborted("pipeline aborted"), errors.ConnectionLost),
        (
            psycopg.OperationalError("cannot exit pipeline mode while busy"),
            errors.ConnectionLost,
        ),
        (
            psycopg.OperationalError("server closed the connection unexpectedly"),
            errors.ConnectionLost,
        ),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), errors.ServerBusy),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), errors.ServerBusy),
        (
            psycopg.OperationalError('FATAL:  password authentication failed for user "u"'),
            errors.ConfigError,
        ),
        (psycopg.OperationalError('FATAL:  database "x" does not exist'), errors.ConfigError),
        (
            psycopg.OperationalError("server does not support SSL, but SSL was required"),
            errors.ConfigError,
        ),
        (psycopg.OperationalError("SSL SYSCALL error: EOF detected"), errors.ConnectionLost),
        (
            psycopg.OperationalError(
                "consuming input failed: SSL error: decryption failed or bad record mac"
            ),
            errors.ConnectionLost,
        ),
        (psycopg.OperationalError("SSL error: certificate verify failed"), errors.ConfigError),
        (psycopg.DatabaseError("lost synchronization with server"), errors.ConnectionLost),
        (psycopg.InternalError("got no result from the query"), errors.ConnectionLost),
        (psycopg.OperationalError(f"something new about {PATIENT}"), Halt),
        (psycopg.DataError(f"cannot adapt {PATIENT}"), Halt),
    ],
)
def test_postgres_errors_are_told_apart_by_sqlstate(
    exc: BaseException, kind: type[ReplicatorError]
) -> None:
    assert type(classify(exc, server=ANALYTICS)) is kind


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), errors.ConnectionLost),
        (BrokenPipeError(), errors.ConnectionLost),
        (TimeoutError("timed out"), errors.ConnectionLost),
        (socket.gaierror(-2, "Name or service not known"), errors.ConnectionLost),
        (OSError(errno.EHOSTUNREACH, "No route to host"), errors.ConnectionLost),
        (OSError(errno.ENOSPC, "No space left on device"), Halt),
        (FileNotFoundError(2, "No such file"), Halt),
        (ssl.SSLCertVerificationError("certificate verify failed"), errors.ConfigError),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), errors.ConnectionLost),
        (KeyError(PATIENT), Halt),
        (ValueError(PATIENT), Halt),
    ],
)
def test_the_systems_errors_are_lost_connections_only_where_they_are_of_the_network(
    exc: BaseException, kind: type[ReplicatorError]
) -> None:
    assert type(classify(exc, server=REPLICA)) is kind


CARRYING_A_ROW = [
    mysql(1062, f"Duplicate entry '{PATIENT}' for key 'LName'"),
    mysql(1062, f"Duplicate entry 'for key '{PATIENT}'' for key 'LName'"),
    mysql(1064, f"You have an error near '{PATIENT}'"),
    mysql(1292, f"Incorrect date value: '{PATIENT}'"),
    mysql(1366, f"Incorrect string value: '{PATIENT}'"),
    mysql(1406, f"Data too long {PATIENT}"),
    mysql(9999, PATIENT),
    postgres("23505", f"DETAIL: Key (LName)=({PATIENT}) already exists."),
    postgres("22P02", f'invalid input syntax: "{PATIENT}" CONTEXT: COPY, line 1'),
    psycopg.DataError(f"cannot adapt {PATIENT}"),
    ValueError(PATIENT),
]


@pytest.mark.parametrize("exc", CARRYING_A_ROW, ids=lambda exc: type(exc).__name__)
def test_row_values_reach_neither_message_nor_hint_nor_traceback(exc: Exception) -> None:
    ours = classify(exc, server=REPLICA)
    assert PATIENT not in f"{ours}{ours.hint}{ours!r}{ours.args}"
    if not isinstance(exc, ValueError):
        with pytest.raises(ReplicatorError) as caught, translated(REPLICA):
            raise exc
        assert PATIENT not in "".join(traceback.format_exception(caught.value)[-1:])
        assert "direct cause" not in "".join(traceback.format_exception(caught.value))


def test_the_key_of_a_duplicate_is_named() -> None:
    ours = classify(mysql(1062, f"Duplicate entry '{PATIENT}' for key 'LName'"), server=REPLICA)
    assert str(ours) == "replica db2:3305: error 1062 on key LName"


def test_the_message_names_server_and_place_and_the_hint_its_variables() -> None:
    ours = classify(
        mysql(1045, "Access denied for user 'u'@'h' (using password: YES)"), server=SOURCE
    )
    assert str(ours).startswith("source db1:3306: Access denied")
    assert "OPENDENTAL_SOURCE_PASSWORD" in ours.hint
    assert "POSTGRES_ANALYTICS_HOST" in classify(TimeoutError(), server=ANALYTICS).hint


def test_our_own_errors_and_wrapped_ones_are_recognised() -> None:
    ours = errors.PositionLost("gone")
    assert classify(ours, server=SOURCE) is ours
    wrapped = sqlalchemy.exc.OperationalError(f"SELECT '{PATIENT}'", {}, mysql(1213, "Deadlock"))
    assert type(classify(wrapped, server=REPLICA)) is errors.ServerBusy


def test_every_error_has_a_docstring_and_a_remedy() -> None:
    def below(kind: type[ReplicatorError]) -> list[type[ReplicatorError]]:
        return [kind, *(deep for sub in kind.__subclasses__() for deep in below(sub))]

    kinds = [kind for kind in below(ReplicatorError) if kind.__module__ == errors.__name__]
    assert len(kinds) == 19
    for kind in kinds:
        assert kind.__doc__
        assert kind("what").hint
        assert kind("what", "do this").hint == "do this"
        assert kind.__name__ in (errors.__doc__ or "")
    assert not [kind for kind in kinds if issubclass(kind, Halt) and issubclass(kind, Transient)]


def test_errors_survive_pickling_with_their_hints() -> None:
    copy = pickle.loads(pickle.dumps(errors.ConfigError("what", "hint", ("a", "b"))))
    assert (str(copy), copy.hint, copy.faults) == ("what", "hint", ("a", "b"))
