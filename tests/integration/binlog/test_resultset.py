"""Result sets arrive as the server sent them, whatever they hold and however they end."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.protocol import MysqlPacket

from replicator.binlog import resultset
from replicator.binlog.resultset import Cut, ResultSet, is_giant, python_cut
from replicator.sandbox.databases import MySQLDatabase
from tests.fix_servers import NewMariaDB
from tests.integration.config.test_tls import make_authority, mariadb_with
from tests.numbers import numbers

try:
    from replicator.binlog.packetcut import cut as compiled_cut
except ImportError:
    compiled_cut = python_cut

CUTS = [python_cut] if compiled_cut is python_cut else [python_cut, compiled_cut]
MIB = 1 << 20
MIB16 = 16 * MIB
_THOUSAND = f"(SELECT seq FROM {numbers(1, 1000)})"
ENDLESS = f"SELECT a.seq, REPEAT('x', 1000) FROM {_THOUSAND} a, {_THOUSAND} b, {_THOUSAND} c"
"""More rows than anybody reads."""


@pytest.fixture(params=CUTS, ids=lambda cut: cut.__module__.rsplit(".", 1)[-1])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    walk: Callable[[bytearray, int, int, int], Cut] = request.param
    monkeypatch.setattr(resultset, "_best_cut", lambda: walk)


@pytest.fixture
def connection(cut: None, source_db: MySQLDatabase) -> Iterator[Any]:
    with closing(raw(source_db)) as opened:
        yield opened


@pytest.fixture
def tls_connection(tmp_path: Path, new_mariadb: NewMariaDB) -> Iterator[Any]:
    server = mariadb_with(make_authority(tmp_path / "authority"), "127.0.0.1", new_mariadb)
    context = ssl.create_default_context(cafile=tmp_path / "authority" / "ca.pem")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with closing(
        pymysql.connect(
            host="127.0.0.1", port=server.port, user="u", password="secret", ssl=context,
            database="information_schema", use_unicode=False, conv={}, autocommit=True,
        )
    ) as opened:  # fmt: skip
        yield opened


def raw(database: MySQLDatabase, **options: Any) -> Any:
    return database.connect(use_unicode=False, conv={}, **options)


def rows_of(blocks: Iterator[bytes], columns: int) -> list[tuple[bytes | None, ...]]:
    """The text protocol's rows as PyMySQL reads them."""
    rows = []
    for block in blocks:
        at = 0
        while at < len(block):
            length = int.from_bytes(block[at : at + 3], "little")
            end = len(block) if is_giant(block) else at + 4 + length
            packet = MysqlPacket(block[at + 4 : end], "utf8")
            rows.append(tuple(packet.read_length_coded_string() for _ in range(columns)))
            at = end
    return rows


def selected(connection: Any, query: str, **options: Any) -> list[tuple[bytes | None, ...]]:
    with ResultSet(connection, query, **options) as result:
        return rows_of(result.blocks(), result.columns)


def asked(connection: Any, query: str) -> list[tuple[bytes | None, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


@pytest.mark.parametrize("block_bytes", [1, 1000, MIB])
def test_rows_are_those_that_pymysql_reads(connection: Any, block_bytes: int) -> None:
    query = (
        "SELECT seq, IF(seq % 3, NULL, REPEAT('é', seq % 700)), NULL, '', x'fefffb00'"
        f" FROM {numbers(1, 3000)}"
    )
    assert selected(connection, query, block_bytes=block_bytes) == asked(connection, query)
    assert asked(connection, "SELECT 1") == [(b"1",)]


def test_blocks_are_about_as_large_as_asked_for(connection: Any) -> None:
    with ResultSet(
        connection, f"SELECT seq FROM {numbers(1, 200_000)}", block_bytes=100_000
    ) as result:
        sizes = [len(block) for block in result.blocks()]
    assert all(100_000 <= size <= 200_000 for size in sizes[:-1])
    assert len(sizes) > 10


def test_an_empty_result_has_no_blocks(connection: Any) -> None:
    assert selected(connection, f"SELECT 1 FROM {numbers(1, 10)} WHERE seq > 10") == []
    assert asked(connection, "SELECT 1") == [(b"1",)]


@pytest.mark.parametrize("size", [MIB16 - 6, MIB16 - 5, MIB16 - 4, MIB16 + 9, 40 * MIB])
def test_rows_of_sixteen_mebibytes_and_more_stand_alone(connection: Any, size: int) -> None:
    query = f"SELECT 1, '' UNION ALL SELECT 2, REPEAT('x', {size}) UNION ALL SELECT 3, NULL"
    if size >= 1 << 24:
        with ResultSet(connection, query) as result:
            kinds = [is_giant(block) for block in result.blocks()]
        assert kinds == [False, True, False]
    rows = selected(connection, query)
    assert [row[0] for row in rows] == [b"1", b"2", b"3"]
    assert rows[1][1] == b"x" * size


def test_an_error_in_mid_result_is_raised_behind_the_rows_before_it(connection: Any) -> None:
    query = (
        f"SELECT IF(seq < 40000, seq, (SELECT seq UNION ALL SELECT 2)) FROM {numbers(1, 50_000)}"
    )
    got: list[bytes] = []
    result = ResultSet(connection, query, block_bytes=1000)
    with pytest.raises(pymysql.OperationalError, match="more than 1 row"):
        got.extend(result.blocks())  # keeps what came before the error
    assert len(rows_of(iter(got), 1)) == 39999
    assert asked(connection, "SELECT 1") == [(b"1",)]


@pytest.mark.parametrize("binary", [False, True])
def test_a_faulty_query_leaves_the_connection_usable(connection: Any, binary: bool) -> None:
    with pytest.raises(pymysql.ProgrammingError):
        ResultSet(connection, "SELECT * FROM nowhere", binary=binary)
    assert asked(connection, "SELECT 1") == [(b"1",)]


def test_a_statement_without_rows_is_refused(connection: Any) -> None:
    with pytest.raises(pymysql.InterfaceError):
        ResultSet(connection, "SET @x = 1")
    assert asked(connection, "SELECT @x") == [(b"1",)]


@pytest.mark.parametrize("binary", [False, True])
def test_a_killed_query_raises(connection: Any, source_db: MySQLDatabase, binary: bool) -> None:
    number = connection.thread_id()
    query = ENDLESS
    result = ResultSet(connection, query, binary=binary)
    blocks = result.blocks()
    next(blocks)
    source_db.execute(f"KILL QUERY {number}")
    with pytest.raises(pymysql.OperationalError, match="interrupted"):
        for _ in blocks:
            pass
    assert asked(connection, "SELECT 1") == [(b"1",)]


def test_a_killed_connection_raises_and_is_closed(
    connection: Any, source_db: MySQLDatabase
) -> None:
    query = ENDLESS
    result = ResultSet(connection, query)
    blocks = result.blocks()
    next(blocks)
    source_db.execute(f"KILL {connection.thread_id()}")
    with pytest.raises(pymysql.OperationalError):
        for _ in blocks:
            pass
    result.close()


def test_closing_early_closes_the_connection(connection: Any) -> None:
    with ResultSet(connection, ENDLESS) as result:
        next(result.blocks())
    assert not connection.open


def test_a_silent_server_raises_after_the_read_time_out(
    cut: None, source_db: MySQLDatabase
) -> None:
    with closing(raw(source_db, read_timeout=1)) as connection:
        query = "SELECT seq, REPEAT('x', 100000), IF(seq = 9, SLEEP(30), 0)"
        query += f" FROM {numbers(1, 10)}"
        result = ResultSet(connection, query, block_bytes=1)
        with pytest.raises(pymysql.OperationalError, match="timed out"):
            for _ in result.blocks():
                pass
        assert not connection.open


def test_binary_rows_are_cut_alike(connection: Any) -> None:
    query = f"SELECT seq, CAST(seq AS DOUBLE), IF(seq % 2, NULL, 'é') FROM {numbers(1, 3000)}"
    with ResultSet(connection, query, binary=True, block_bytes=1000) as result:
        data = b"".join(result.blocks())
    at = rows = 0
    while at < len(data):
        assert data[at + 4] == 0
        assert int.from_bytes(data[at + 6 : at + 14], "little") == rows + 1
        at += 4 + int.from_bytes(data[at : at + 3], "little")
        rows += 1
    assert rows == 3000
    assert asked(connection, "SHOW SESSION STATUS LIKE 'Com_stmt_close'") == [
        (b"Com_stmt_close", b"1")
    ]


def test_a_packet_out_of_its_turn_is_refused(cut: None) -> None:
    walk = resultset._best_cut()
    good = bytearray(b"\1\0\0\5a\1\0\0\6b\1\0\0\6c")
    assert walk(good, 0, len(good), 5) == (10, 7, resultset.MISNUMBERED)
    assert walk(good, 0, 9, 5) == (5, 6, resultset.MORE)


def test_the_walks_agree_about_anything(cut: None) -> None:
    walk = resultset._best_cut()
    frames = [b"\1\0\0\0a", b"\0\0\0\1", b"\5\0\0\2\xfe\0\0\0\0", b"\xff\xff\xff\2x",
              b"\3\0\0\2\xffxy", b"\x0a\0\0\2\xfe123456789"]  # fmt: skip
    for tail in range(2, len(frames)):
        data = bytearray(b"".join([*frames[:2], frames[tail]]))
        for end in range(len(data) + 1):
            assert walk(data, 0, end, 0) == python_cut(data, 0, end, 0)


def test_it_reads_through_tls(cut: None, tls_connection: Any) -> None:
    query = "SELECT *, REPEAT('x', 30000) FROM information_schema.COLLATIONS"
    assert selected(tls_connection, query) == asked(tls_connection, query)
    assert tls_connection._secure
