"""MySQL's JSON is copied as the server stores it, and printed as the server prints it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import SchemaDrift
from replicator.binlog.jsonencoding import encode_selected, selected
from replicator.binlog.jsonprinting import printed_double, printed_json
from replicator.binlog.rowimage import RowImageEncoder, TableLayout, split_rows
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import (
    Log,
    catalog_of,
    copy_rows,
    differences,
    raw_rows,
)
from tests.integration.binlog.random_tables import JSON_SCALARS, documents
from tests.numbers import numbers

pytestmark = pytest.mark.only_on("mysql", reason="MariaDB's JSON is text")

modest = settings(
    max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


def fill(database: MySQLDatabase, *expressions: str) -> list[bytes]:
    """Make `original` with these documents and `copy` without; what the server stored of each."""
    database.execute("DROP TABLE IF EXISTS original, copy")
    database.execute("CREATE TABLE original (id int PRIMARY KEY, j json)")
    database.execute("CREATE TABLE copy LIKE original")
    log = Log(database)
    for at, one in enumerate(expressions):
        database.execute(f"INSERT INTO original VALUES ({at}, {one})")
    images = [
        after
        for table_map, event in log.rows()
        for _before, after in split_rows(event, table_map)
        if after is not None
    ]
    return [image[9:] for image in images]  # behind the NULLs, the id, and the length


def selection(database: MySQLDatabase) -> list[tuple[bytes, bytes]]:
    """Each document as it is selected for a copy, and its plain text."""
    rows = raw_rows(database, "original", ["id", selected("`j`"), "CAST(j AS CHAR)"])
    return [(row[1] or b"", row[2] or b"") for row in rows]


def holds(database: MySQLDatabase, *documents: str) -> None:
    """These documents are encoded as the server stores them, printed as it prints them."""
    stored = fill(database, *documents)
    for theirs, (printed, text), document in zip(
        stored, selection(database), documents, strict=True
    ):
        assert printed_json(theirs).encode() == text, document
        ours = encode_selected(printed)
        assert printed_json(ours).encode() == text
        if "DECIMAL(" not in document:  # such may be stored with zeros in front
            assert ours == theirs, document
    copy_rows(database, "original", "copy")
    assert differences(database, "original", "copy") == []


@modest
@given(some=st.deferred(documents).flatmap(lambda column: st.lists(column[1], min_size=1)))
def test_documents_are_encoded_as_the_server_stores_them(
    replica_db: MySQLDatabase, some: list[str]
) -> None:
    holds(replica_db, *some)


@pytest.mark.parametrize("form", ["JSON_EXTRACT(JSON_ARRAY({}), '$[0]')", "JSON_ARRAY({0}, {0})"])
def test_each_kind_of_element_alone_and_within_a_document(
    replica_db: MySQLDatabase, form: str
) -> None:
    holds(replica_db, *(form.format(one) for one in JSON_SCALARS))


def test_documents_beyond_64_kib_have_long_offsets_where_they_need_them(
    replica_db: MySQLDatabase,
) -> None:
    def cells(count: int, one: str) -> str:
        return f"CAST(CONCAT('[{one}', REPEAT(', {one}', {count - 1}), ']') AS JSON)"

    borders = [cells(21_841 + more, "1") for more in (-1, 0, 1, 2)]  # 3 bytes each, behind 4
    inner = f"JSON_OBJECT('inner', {cells(3, '1')}, 'text', REPEAT('x', 65000))"
    holds(
        replica_db,
        *borders,
        cells(70_000, "true"),
        cells(70_000, "100000"),  # INT32: stands in the place of a long offset
        cells(9_000, '{"a": [-1, 3000000000]}'),
        *(f"JSON_ARRAY(REPEAT('x', {65_535 - 10 + more}), -1, -70000)" for more in range(-2, 3)),
        f"JSON_ARRAY({inner}, {inner}, JSON_ARRAY(JSON_ARRAY(-1)))",
        f"JSON_OBJECT(REPEAT('k', 65535), 1, REPEAT('l', 65535), {cells(3, '-7')})",
    )


def test_the_deepest_document_arrives(replica_db: MySQLDatabase) -> None:
    for depth in (99, 100):
        arrays = f"CAST(CONCAT(REPEAT('[', {depth}), REPEAT(']', {depth})) AS JSON)"
        members = f"""CONCAT(REPEAT('{{"a":', {depth - 1}), '{{}}', REPEAT('}}', {depth - 1}))"""
        holds(replica_db, arrays, f"CAST({members} AS JSON)")


def test_keys_stay_in_the_servers_order_and_the_last_of_equal_ones_wins(
    replica_db: MySQLDatabase,
) -> None:
    holds(
        replica_db,
        """'{"bb": 1, "a": 2, "Ä": 3, "z": 4, "a": 5, "": 6, "\\\\u0000": 7, "😀": 8, "ccc": 9}'""",
    )
    assert replica_db.query("SELECT JSON_EXTRACT(j, '$.a') FROM copy") == [("5",)]


def test_doubles_are_printed_as_the_server_prints_them(replica_db: MySQLDatabase) -> None:
    """At each power of ten, and next to it."""
    values = [
        digits * 10.0**power
        for power in range(-320, 309)
        for digits in (1.0, 1.2345678901234567, -9.87654321)
        if digits * 10.0**power not in (0.0, float("-inf"))
    ]
    fill(replica_db, f"'[{', '.join(map(repr, values))}]'")
    ((_printed, text),) = selection(replica_db)
    assert "[" + ", ".join(map(printed_double, values)) + "]" == text.decode()


def test_a_document_whose_kinds_were_cut_is_refused(replica_db: MySQLDatabase) -> None:
    fill(replica_db, "'[1, 2, 3]'")
    ((printed, _text),) = selection(replica_db)
    encoder = RowImageEncoder(TableLayout.of(catalog_of(replica_db, "copy")))
    for broken in (printed.replace(b"iii", b"ii"), printed.replace(b"iii", b"iiii"), b"[1, 2, 3]"):
        with pytest.raises(SchemaDrift, match=r"copy\.j"):
            encoder.encode((b"1", broken))


def test_a_not_null_column_that_was_added_later_reads_null_and_arrives(
    replica_db: MySQLDatabase,
) -> None:
    replica_db.execute("CREATE TABLE original (id int PRIMARY KEY)")
    replica_db.execute(f"INSERT INTO original SELECT seq FROM {numbers(1, 3)}")
    replica_db.execute("ALTER TABLE original ADD j json NOT NULL")
    replica_db.execute("CREATE TABLE copy LIKE original")
    copy_rows(replica_db, "original", "copy")
    select = "SELECT id, CAST(j AS CHAR) FROM {} ORDER BY 1"
    assert replica_db.query(select.format("copy")) == replica_db.query(select.format("original"))
    assert printed_json(b"") == "null"


def test_columns_named_like_our_own_words_are_selected(replica_db: MySQLDatabase) -> None:
    replica_db.execute("CREATE TABLE original (_at int PRIMARY KEY, _it json, _elements json)")
    replica_db.execute("CREATE TABLE copy LIKE original")
    replica_db.execute("INSERT INTO original VALUES (1, '[1]', '{\"a\": 2.5}'), (2, NULL, '3')")
    copy_rows(replica_db, "original", "copy")
    assert differences(replica_db, "original", "copy") == []
