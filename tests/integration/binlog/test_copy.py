"""Rows copied by image are the rows of the source, by the server's own account."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, note, settings

from config.errors import CopyRefused, SchemaDrift
from replicator.binlog import catalog, schema
from replicator.binlog.events import EventType, parse_table_map, with_header
from replicator.binlog.rowimage import (
    Kind,
    RowImageEncoder,
    TableLayout,
    build_table_map,
    rows_event,
    split_rows,
)
from replicator.binlog.schema import (
    hashes_from_catalog,
    schema_from_catalog,
    schema_from_table_map,
    schemas_from_catalog,
)
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import REPLICA_OPTIONS
from tests.fix_servers import NewMariaDB, family
from tests.integration.binlog.logged import (
    Log,
    apply,
    catalog_of,
    copy_rows,
    differences,
    raw_rows,
)
from tests.integration.binlog.random_tables import RandomTable, tables

modest = settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture
def lenient(replica_db: MySQLDatabase) -> MySQLDatabase:
    """A database whose session lets zero dates and the like in, as OpenDental's server does."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    return replica_db


def fill(database: MySQLDatabase, table: RandomTable) -> None:
    """Make the table `original`, with its rows, and `copy`, without."""
    database.execute("DROP TABLE IF EXISTS original, copy")
    database.execute(f"CREATE TABLE original {table.definition}")
    database.execute("CREATE TABLE copy LIKE original")
    rows = ",".join(f"({', '.join(row)})" for row in table.rows)
    database.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")


def make(database: MySQLDatabase, definition: str, *rows: str) -> None:
    database.execute(f"CREATE TABLE original {definition}")
    database.execute("CREATE TABLE copy LIKE original")
    for row in rows:
        database.execute(f"INSERT INTO original VALUES {row}")


@modest
@given(table=tables())
def test_random_tables_arrive_exactly_and_look_the_same_from_both_ends(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    log = Log(lenient)
    fill(lenient, table)
    note(table.definition)
    ((table_map, event),) = log.rows()
    catalog = catalog_of(lenient, "original")

    streamed = schema_from_table_map(table_map)
    assert streamed == schema_from_catalog(catalog)
    assert streamed.hash == schema_from_catalog(catalog).hash

    ours = build_table_map(table_map.table_id, lenient.name, TableLayout.of(catalog))
    assert table_map.raw[27:].startswith(ours[27:])

    made = copy_rows(lenient, "original", "copy")
    assert differences(lenient, "original", "copy") == []

    logged = [after for _before, after in split_rows(event, table_map) if after is not None]
    # MySQL leaves virtual columns out of what it logs; ours have room for them.
    if family() == "mariadb" and not catalog.hidden_hashes and "compressed" not in table.definition:
        assert sorted(made) == sorted(logged)
    lenient.execute("TRUNCATE copy")
    for image in logged if family() == "mariadb" else made:
        apply(
            lenient,
            retitled(ours, "copy"),
            rows_event(table_map.table_id, len(table_map.column_types), [image]),
        )
    assert differences(lenient, "original", "copy") == []


def test_values_at_the_edges_of_their_types_arrive_exactly(lenient: MySQLDatabase) -> None:
    make(
        lenient,
        """(id int PRIMARY KEY, d date, dt datetime(6), t time(3), ts timestamp(2) NULL, f float,
            g double, n decimal(65,30), b1 bit(1), b64 bit(64), e enum('a'), s set('a','b'),
            u bigint unsigned, big longblob, nothing text)""",
        """(1, '0000-00-00', '2020-00-15 00:00:00.000001', '-838:59:59.999', '0000-00-00', -1e-60,
            5e-324, -0.000000000000000000000000000001, 1, 0xffffffffffffffff, 0, '',
            18446744073709551615, REPEAT('x', 1048576), '')""",
        """(2, '2020-00-15', '0000-00-00', '-00:00:00.001', '2038-01-19 03:14:07.99', 1e-45,
            NULL, -99999999999999999999999999999999999.999999999999999999999999999999, 0, 0, 1,
            'a,b', 0, '', NULL)""",
        "(3, '0001-01-01', '9999-12-31 23:59:59.999999', '-01:00:00', '1970-01-01 00:00:01', 0.1,"
        " 0.1, 0, 1, 1, 1, 'b', 1, NULL, ' ')",
    )
    copy_rows(lenient, "original", "copy")
    assert differences(lenient, "original", "copy") == []


def test_a_zeros_sign_arrives_although_the_server_does_not_print_it(
    lenient: MySQLDatabase,
) -> None:
    make(lenient, "(id int PRIMARY KEY, f float, g double)")
    layout = TableLayout.of(catalog_of(lenient, "original"))
    rows = RowImageEncoder(layout).rows_event(5, [(b"1", b"-0", b"-0"), (b"2", b"0", b"0")])
    apply(lenient, build_table_map(5, lenient.name, layout), rows)
    copy_rows(lenient, "original", "copy")
    assert differences(lenient, "original", "copy") == []
    signs = "SELECT ATAN2(f, -1) < 0, ATAN2(g, -1) < 0 FROM copy ORDER BY id"
    assert lenient.query(signs) == [(1, 1), (0, 0)]


@pytest.mark.only_on("mariadb", reason="MySQL itself cuts a replicated TEXT at the first bad byte")
def test_bytes_that_are_no_text_in_their_charset_arrive_exactly(lenient: MySQLDatabase) -> None:
    make(lenient, "(id int PRIMARY KEY, v varchar(20), c char(10), t text) CHARSET utf8mb4")
    layout = TableLayout.of(catalog_of(lenient, "original"))
    broken = (b"1", b"\xff\xfe\x80", b"\xc3", b"\xf0\x9f\x98")
    row = RowImageEncoder(layout).rows_event(5, [broken])
    apply(lenient, build_table_map(5, lenient.name, layout), row)
    assert raw_rows(lenient, "original", ["id", "v", "c", "t"]) == [broken]
    copy_rows(lenient, "original", "copy")
    assert differences(lenient, "original", "copy") == []


def test_a_copy_does_not_depend_on_the_sessions_time_zone(lenient: MySQLDatabase) -> None:
    make(lenient, "(id int PRIMARY KEY, ts timestamp(3) NULL)")
    lenient.execute("INSERT INTO original VALUES (1, '2024-10-27 01:30:00.5'), (2, 0), (3, NULL)")
    lenient.execute("SET GLOBAL time_zone = '+05:30'")
    try:
        copy_rows(lenient, "original", "copy")
    finally:
        lenient.execute("SET GLOBAL time_zone = 'SYSTEM'")
    assert differences(lenient, "original", "copy") == []


@pytest.mark.only_on("mariadb", reason="MySQL has no unique keys over whole texts")
def test_long_unique_keys_hold_among_copied_rows(lenient: MySQLDatabase) -> None:
    make(lenient, "(id int PRIMARY KEY, t text, UNIQUE (t))", "(1, 'one')", "(2, NULL)")
    copy_rows(lenient, "original", "copy")
    assert lenient.query("SELECT id FROM copy WHERE t = 'one'") == [(1,)]
    with pytest.raises(pymysql.err.IntegrityError):
        lenient.execute("INSERT INTO copy VALUES (3, 'one')")
    lenient.execute("DELETE FROM copy")
    lenient.execute("INSERT INTO copy VALUES (3, 'one')")


def test_a_row_filled_from_a_virtual_column_is_found_by_its_index(lenient: MySQLDatabase) -> None:
    make(lenient, "(id int PRIMARY KEY, twice int AS (id * 2) VIRTUAL, KEY (twice))")
    lenient.execute("INSERT INTO original (id) VALUES (4)")
    copy_rows(lenient, "original", "copy")
    assert lenient.query("SELECT id FROM copy FORCE INDEX (twice) WHERE twice = 8") == [(4,)]
    assert lenient.query("CHECK TABLE copy")[-1][-1] == "OK"


def test_split_updates_and_deletes_take_effect_when_sent_again(lenient: MySQLDatabase) -> None:
    rows = [f"({number}, REPEAT('x', {number * 100}), 'y')" for number in range(1, 6)]
    make(lenient, "(id int PRIMARY KEY, v varchar(1000), w char(3))", *rows)
    copy_rows(lenient, "original", "copy")
    log = Log(lenient)
    lenient.execute("UPDATE original SET id = id + 10, w = NULL WHERE id > 1")
    lenient.execute("DELETE FROM original WHERE id > 13")
    (updates_map, updates), (deletes_map, deletes) = log.rows()
    target = retitled(updates_map.raw, "copy")
    for before, after in split_rows(updates, updates_map):
        assert before is not None
        assert after is not None
        event = rows_event(updates_map.table_id, 3, [before, after], kind=Kind.UPDATE)
        apply(lenient, target, event)
    target = retitled(deletes_map.raw, "copy")
    for before, after in split_rows(deletes, deletes_map):
        assert after is None
        assert before is not None
        event = rows_event(deletes_map.table_id, 3, [before], kind=Kind.DELETE)
        apply(lenient, target, event)
    assert differences(lenient, "original", "copy") == []


@pytest.mark.only_on("mariadb", reason="MySQL has no system-versioned tables")
def test_an_implicitly_versioned_table_looks_the_same_from_both_ends_but_is_not_copied(
    lenient: MySQLDatabase,
) -> None:
    log = Log(lenient)
    make(lenient, "(id int PRIMARY KEY) WITH SYSTEM VERSIONING", "(1)")
    ((table_map, _event),) = log.rows()
    catalog = catalog_of(lenient, "original")
    assert schema_from_table_map(table_map) == schema_from_catalog(catalog)
    with pytest.raises(CopyRefused, match="original"):
        TableLayout.of(catalog)


@pytest.mark.only_on("mariadb", reason="MySQL cannot make columns in the old formats any more")
def test_rows_in_the_temporal_formats_of_before_mysql_56_are_split(
    new_mariadb: NewMariaDB,
) -> None:
    server = new_mariadb({**REPLICA_OPTIONS, "mysql56_temporal_format": "OFF"})
    database = MySQLDatabase(server, "old", "root", "")
    database.create()
    log = Log(database)
    database.execute("CREATE TABLE original (id int, dt datetime, ts timestamp NULL, t time)")
    database.execute(
        "INSERT INTO original VALUES (1, '2020-01-02', '2020-01-02', '-01:00:00'),"
        " (2, NULL, '2020-01-02', '01:00:00')"
    )
    ((table_map, event),) = log.rows()
    assert [table_map.column_types[at] for at in (1, 2, 3)] == [12, 7, 11]
    images = [after for _before, after in split_rows(event, table_map)]
    assert [len(image) for image in images if image] == [1 + 4 + 8 + 4 + 3, 1 + 4 + 4 + 3]
    with pytest.raises(CopyRefused, match="temporal format"):
        TableLayout.of(catalog_of(database, "original"))
    database.close()


def test_a_value_that_does_not_fit_is_refused_without_being_shown(lenient: MySQLDatabase) -> None:
    make(lenient, "(id int PRIMARY KEY, name varchar(5) CHARACTER SET latin1)")
    encoder = RowImageEncoder(TableLayout.of(catalog_of(lenient, "copy")))
    with pytest.raises(SchemaDrift, match=r"original\.name|copy\.name") as refusal:
        encoder.encode((b"1", b"Smithson"))
    assert "Smithson" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_schemas_of_tables_whose_names_differ_in_case_alone_are_kept_apart(
    lenient: MySQLDatabase,
) -> None:
    lenient.execute("CREATE TABLE twin (a int)")
    lenient.execute("CREATE TABLE Twin (b int)")
    lenient.execute("CREATE VIEW seen AS SELECT 1")
    with closing(lenient.connect()) as connection:
        assert list(schemas_from_catalog(connection, lenient.name, ["Twin"])) == ["Twin"]
        every = schemas_from_catalog(connection, lenient.name)
    assert sorted(every) == ["Twin", "twin"]
    assert every["twin"].columns[0].name == "a"


def test_of_many_tables_the_catalog_is_asked_for_a_few_at_a_time(
    lenient: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All columns of some hundred wide tables would take more memory than a daemon may have."""
    names = [f"t{number}" for number in range(20)]
    for name in names:
        lenient.execute(f"CREATE TABLE {name} (a int, b_{name} int)")
    asked = list[int]()
    read = schema.read_catalog

    def noted(connection: Any, database: str, tables: Any) -> Any:
        asked.append(len(tables))
        return read(connection, database, tables)

    monkeypatch.setattr(schema, "read_catalog", noted)
    with closing(lenient.connect()) as connection:
        hashes = hashes_from_catalog(connection, lenient.name, set(names))
        found = schemas_from_catalog(connection, lenient.name, names)
    assert list(found) == sorted(names)
    assert hashes == {name: one.hash for name, one in found.items()}
    assert len(set(hashes.values())) == len(names)
    assert max(asked) < len(names) / 2


def test_a_table_that_changes_between_two_views_of_the_catalog_is_read_again(
    lenient: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient.execute("CREATE TABLE t (id int PRIMARY KEY)")
    rows = catalog._rows

    def altered_first(connection: Any, view: str, *arguments: Any) -> Any:
        if view == "STATISTICS":
            monkeypatch.setattr(catalog, "_rows", rows)
            lenient.execute("ALTER TABLE t DROP PRIMARY KEY, ADD c int NOT NULL, ADD UNIQUE (c)")
        return rows(connection, view, *arguments)

    monkeypatch.setattr(catalog, "_rows", altered_first)
    with closing(lenient.connect()) as connection:
        found = schemas_from_catalog(connection, lenient.name, ["t"])["t"]
    assert [column.name for column in found.columns] == ["id", "c"]
    assert found.primary_key == (1,)


def retitled(table_map: bytes, table: str) -> bytes:
    """A TABLE_MAP event for another table of the same shape."""
    parsed = parse_table_map(table_map)
    start, end = parsed.table_span
    name = bytes([len(table)]) + table.encode() + b"\0"
    body = table_map[19:start] + name + table_map[end:]
    return with_header(EventType.TABLE_MAP, 0, 2, 0, body)
