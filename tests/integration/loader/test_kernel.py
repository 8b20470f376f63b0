"""The compiled kernel against the Python decoder and mysql-replication, on a real server's events.

That the Python decoder is right is `test_values`' business, where the server's own SELECT
is the oracle; here the kernel is held to it byte for byte, and a second time to a library
that knows nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent

from loader.rows import PythonDecoder, plan_for
from loader.types import RawColumn
from loader.values import fields_of
from replicator.binlog.events import decompress_rows, parse_table_map, table_id_of
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.loader.kernel_events import as_v2, events_of, outcome

kernel = pytest.importorskip("loader.kernel", reason="the row kernel was not built")

modest = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture
def lenient(replica_db: MySQLDatabase) -> MySQLDatabase:
    """A database whose session lets zero dates and the like in, as OpenDental's server does."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    return replica_db


@modest
@given(table=tables(rows=4))
def test_rows_of_random_tables_are_decoded_alike(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    note(table.definition)
    decoder = kernel.KernelDecoder()
    logged = events_of(lenient, table)
    assert {event[4] for _, event in logged} in ({23, 24, 25}, {30, 31, 32})
    for table_map, event in logged:
        plan = plan_for(table_map)
        expected = outcome(PythonDecoder(), event, plan)
        assert outcome(decoder, event, plan) == expected
        assert outcome(decoder, as_v2(event), plan) == expected
        for cut in {0, 1, len(event) // 2, len(event) - 30} & set(range(len(event) - 4)):
            short = event[: len(event) - cut]
            assert outcome(decoder, short, plan) == outcome(PythonDecoder(), short, plan)


@pytest.mark.only_on("mariadb", reason="its binlog's own compression")
def test_mariadbs_compressed_rows_are_decoded_alike(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    lenient.execute("SET SESSION binlog_row_image = 'FULL'")
    lenient.execute("SET GLOBAL log_bin_compress = 1")
    try:
        log = Log(lenient)
        lenient.execute("INSERT INTO t VALUES (1, REPEAT('long ', 500)), (2, NULL)")
        lenient.execute("UPDATE t SET v = REPEAT('longer', 500)")
        lenient.execute("DELETE FROM t")
    finally:
        lenient.execute("SET GLOBAL log_bin_compress = 0")
    events = log.events()
    maps = {table_id_of(e): parse_table_map(e) for e in events if e[4] == 19}
    packed = [event for event in events if 166 <= event[4] <= 171]
    assert {event[4] for event in packed} == {166, 167, 168}
    for event in packed:
        plan, plain = plan_for(maps[table_id_of(event)]), decompress_rows(event)
        changes = kernel.KernelDecoder().decode(plain, plan)
        assert changes == PythonDecoder().decode(plain, plan) != []


# --- against mysql-replication ---------------------------------------------------------------
#
# Where that library is right: not for latin1 (it takes strict cp1252), YEAR and TIMESTAMP 0,
# BINARY's padding, an empty SET or byte string, and whatever no Python value can hold.

COMMON = (
    "id bigint, ti tinyint, tu tinyint unsigned, si smallint, su smallint unsigned, mi mediumint,"
    " mu mediumint unsigned, i int, iu int unsigned, bi bigint, bu bigint unsigned,"
    " d1 decimal(65,30), d2 decimal(10,2), d3 decimal(9,9), f float, g double, b bit(13),"
    " d date, dt datetime, dt3 datetime(3), dt6 datetime(6), ts timestamp NULL, ts2 timestamp(2),"
    " t time, t3 time(3), v varchar(40), vl varchar(300), x text, lx longtext, c char(9),"
    " vb varbinary(300), bl blob, e enum('a','b'), s set('x','y','z'), y year, PRIMARY KEY (id)"
)
COMMON_ROWS = (
    "1, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295,"
    " -9223372036854775808, 18446744073709551615, -1.000000000000000000000000000001, -99999999.99,"
    " -0.999999999, 0.1, 1.7976931348623157e308, b'1010101010101', '0001-01-01',"
    " '9999-12-31 23:59:59', '2000-01-01 00:00:00.005', '2024-02-29 12:34:56.000001',"
    " '1970-01-01 00:00:01', '2038-01-19 03:14:07.99', '-838:59:59', '838:59:58.999',"
    " 'tab\\tnl\\n\\\\', REPEAT('é', 300), '日本語😀', '', 'pad  ', X'00ff0a', X'0900',"
    " 'b', 'x,z', 2155",
    "2, 127, 0, 32767, 0, 8388607, 0, 2147483647, 0, 9223372036854775807, 0, 0, 0, 0, -3.5e10,"
    " -123.45, b'0', '2024-02-29', '1000-01-01 00:00:00', '2000-01-01', '2000-01-01',"
    " '2024-06-15 12:00:00', '2000-01-01 00:00:00.5', '-00:00:01', '-01:00:00.5', '', '', 'plain',"
    " 'x', '', X'01', X'5c', 'a', 'y', 1901",
    "3" + ", NULL" * 34,
)


def _clock(value: timedelta) -> str:
    micros = round(value.total_seconds() * 1_000_000)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    sign = "-" if micros < 0 else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"


def _shown(kind: str, value: Any) -> str | bytes | None:
    """One of the library's values in the words of `raw`; fractions with all six digits."""
    if value is None:
        return None
    shown: dict[type, Callable[[Any], str | bytes]] = {
        timedelta: _clock,
        datetime: lambda moment: moment.isoformat(" ", "microseconds"),
        date: date.isoformat,
        Decimal: lambda number: f"{number:f}",
        set: lambda members: ",".join(sorted(members)),
        bytes: lambda data: b"\\x" + data.hex().encode() if kind == "bytea" else data,
    }
    return shown.get(type(value), str)(value)


def _ours(column: RawColumn, value: bytes | None) -> str | bytes | None:
    if value is None:
        return None
    text = value.decode().removesuffix("+00" if "with time zone" in column.type else "\0")
    if column.type.startswith("timestamp") or column.type == "interval":
        whole, _, fraction = text.partition(".")
        return f"{whole}.{fraction:0<6}"
    return value if column.type == "bytea" else text


def _library_rows(database: MySQLDatabase, file: str, at: int) -> list[dict[str, Any]]:
    server = database.server
    reader = BinLogStreamReader(
        connection_settings={
            "host": "127.0.0.1", "port": server.port, "user": "root",
            "password": (server.directory / "root.password").read_text(),
        },
        server_id=987_654, log_file=file, log_pos=at, only_events=[WriteRowsEvent],
        only_schemas=[database.name], resume_stream=True, blocking=False,
    )  # fmt: skip
    try:
        return [row["values"] for event in reader for row in event.rows]
    finally:
        reader.close()


@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")  # the library's
def test_values_are_those_that_mysql_replication_reads(lenient: MySQLDatabase) -> None:
    lenient.execute(f"CREATE TABLE t ({COMMON})")
    log = Log(lenient)
    lenient.execute("INSERT INTO t VALUES " + ", ".join(f"({row})" for row in COMMON_ROWS))
    theirs = _library_rows(lenient, log.file, log.at)
    table_map, event = log.rows()[0]
    plan = plan_for(table_map)
    changes = kernel.KernelDecoder().decode(event, plan)
    assert len(changes) == len(theirs) == len(COMMON_ROWS)
    for change, values in zip(changes, theirs, strict=True):
        assert change.faults == ()
        fields = zip(plan.columns, fields_of(change.row), strict=True)
        ours = {column.name: _ours(column, field) for column, field in fields}
        kinds = {column.name: column.type for column in plan.columns}
        assert ours == {name: _shown(kinds[name], value) for name, value in values.items()}
