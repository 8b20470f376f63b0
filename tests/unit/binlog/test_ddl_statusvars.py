"""Status variables of a QUERY event, and the session and text that follow from them."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UnknownEvent, UnsupportedStatement
from replicator.binlog.charsets import charset_of, decode_text, encode_text
from replicator.binlog.ddl import Execute, Skip, Verdict
from replicator.binlog.events import QueryEvent
from replicator.binlog.statusvars import StatusVariables, parse_status_variables
from replicator.ddl_session import (
    SessionContext,
    decide_query,
    reset_statements,
    session_statements,
    statement_bytes,
    statement_text,
)

MARIADB = SessionContext(source_version=101119, replica_version=101119, time_zone="-05:00")
MYSQL = SessionContext(source_version=90704, replica_version=90704)


def charset(client: int, connection: int, server: int) -> bytes:
    return b"\x04" + struct.pack("<HHH", client, connection, server)


def query(status: bytes, statement: bytes = b"") -> QueryEvent:
    return QueryEvent(
        timestamp=1_700_000_000,
        thread_id=1,
        error_code=0,
        database="opendental",
        status_vars=status,
        statement=statement,
    )


def settings(status: bytes, context: SessionContext = MARIADB) -> dict[str, str]:
    (statement,) = session_statements(query(status), context)
    pairs = statement.removeprefix("SET SESSION ").split(", SESSION ")
    return dict(pair.split(" = ") for pair in pairs)


def test_every_variable_of_mariadb_is_read() -> None:
    raw = (
        b"\x00" + struct.pack("<I", 0x4000000)
        + b"\x01" + struct.pack("<Q", 4)
        + b"\x06\x03std"
        + b"\x03" + struct.pack("<HH", 2, 3)
        + charset(8, 33, 45)
        + b"\x05\x06+05:30"
        + b"\x07\x01\x00"
        + b"\x08\x1f\x00"
        + b"\x09" + bytes(8)
        + b"\x0a" + bytes(4)
        + b"\x0b\x04root\x09localhost"
        + b"\x80\x40\xe2\x01"
        + b"\x81" + struct.pack("<Q", 77)
        + b"\x82\x04" + struct.pack("<Q", 5)
        + b"\x83\x01" + struct.pack("<HH", 45, 2304)
    )  # fmt: skip
    assert parse_status_variables(raw, "mariadb") == StatusVariables(
        flags2=0x4000000,
        sql_mode=4,
        auto_increment=(2, 3),
        charset=(8, 33, 45),
        time_zone="+05:30",
        lc_time_names=1,
        collation_database=31,
        microseconds=123456,
        xid=77,
        alter_flags=4,
        alter_start=5,
        collations=((45, 2304),),
    )


def test_every_variable_of_mysql_is_read() -> None:
    raw = (
        b"\x0c\x02one\0two\0"
        + b"\x0d\x01\x00\x00"
        + b"\x10\x01"
        + b"\x11" + struct.pack("<Q", 9)
        + b"\x12\xff\x00"
        + b"\x13\x00"
        + b"\x14\x01"
        + b"\x0c\xfe"
    )  # fmt: skip
    assert parse_status_variables(raw, "mysql") == StatusVariables(
        microseconds=1,
        explicit_defaults_for_timestamp=True,
        xid=9,
        default_collation_for_utf8mb4=255,
        sql_require_primary_key=False,
        default_table_encryption=True,
    )


@given(st.binary(max_size=60), st.sampled_from(["mariadb", "mysql"]))
def test_any_bytes_are_read_whole_or_refused(raw: bytes, flavour: Any) -> None:
    with suppress(UnknownEvent):
        assert isinstance(parse_status_variables(raw, flavour), StatusVariables)


@pytest.mark.parametrize("raw", [b"\xfe", b"\x00\x01", b"\x05\x09abc", b"\x0d\x00\x00\x00"])
def test_unknown_and_torn_variables_are_refused(raw: bytes) -> None:
    with pytest.raises(UnknownEvent):
        parse_status_variables(raw, "mariadb")


def test_what_an_event_leaves_out_is_the_default_at_the_source() -> None:
    found = settings(b"")
    assert found["timestamp"] == "1700000000.000000"
    assert found["time_zone"] == "'-05:00'"
    assert found["collation_database"] == "DEFAULT"
    assert (found["auto_increment_increment"], found["auto_increment_offset"]) == ("1", "1")
    assert found["default_storage_engine"] == "InnoDB"
    assert found["system_versioning_alter_history"] == "KEEP"
    assert found["foreign_key_checks"] == found["unique_checks"] == "ON"


def test_system_is_the_sources_time_zone_not_the_replicas() -> None:
    assert settings(b"\x05\x06SYSTEM")["time_zone"] == "'-05:00'"
    assert settings(b"\x05\x06+01:00")["time_zone"] == "'+01:00'"


def test_flags_turn_into_variables() -> None:
    flags = 0x4000000 | 0x8000000 | 0x4000 | 0x8000 | 0x1000000 | 0x10000000 | 0x40000000
    found = settings(b"\x00" + struct.pack("<I", flags))
    on = "sql_auto_is_null", "explicit_defaults_for_timestamp", "sql_if_exists"
    off = "foreign_key_checks", "unique_checks", "check_constraint_checks"
    assert {found[name] for name in on} == {"ON"}
    assert {found[name] for name in off} == {"OFF"}
    assert found["system_versioning_insert_history"] == "ON"


@pytest.mark.parametrize(
    ("version", "expected"), [(100518, "OFF"), (100516, "ON"), (100339, "ON"), (110800, "OFF")]
)
def test_old_releases_do_not_log_the_timestamp_default(version: int, expected: str) -> None:
    context = replace(MARIADB, source_version=version, explicit_defaults_for_timestamp=True)
    assert settings(b"", context)["explicit_defaults_for_timestamp"] == expected


def test_the_client_charset_is_a_name_and_collations_are_numbers() -> None:
    found = settings(charset(46, 2304, 8))
    assert found["character_set_client"] == "utf8mb4"
    assert (found["collation_connection"], found["collation_server"]) == ("2304", "8")


def test_directories_and_options_of_the_sources_engine_are_never_taken_over() -> None:
    assert int(settings(b"")["sql_mode"]) == 128 | 16
    assert int(settings(b"", MYSQL)["sql_mode"]) == 128


@pytest.mark.parametrize("flags", [b"\x82\x02", b"\x82\x08" + bytes(8)])
def test_only_the_commit_of_a_two_phase_alter_counts(flags: bytes) -> None:
    assert decided(query(flags, b"ALTER TABLE t ADD a INT")) == Skip("unfinished alter")
    committed = query(b"\x82\x04" + bytes(8), b"ALTER TABLE t ADD a INT")
    assert isinstance(decided(committed), Execute)


def test_a_change_that_failed_half_way_asks_for_a_copy() -> None:
    failed = replace(query(b"", b"DROP TABLE t, u"), error_code=1317)
    found = decided(failed)
    assert isinstance(found, Execute)
    assert (found.statements, found.needs_copy) == ((), ("t", "u"))
    absent = decided(replace(failed, error_code=1051))
    assert isinstance(absent, Execute)
    assert absent.dropped == ("t", "u")


def decided(event: QueryEvent) -> Verdict:
    return decide_query(
        event, MARIADB, source_db="opendental", replica_db="copy", carries=lambda _: True
    )


def test_an_unknown_charset_halts() -> None:
    with pytest.raises(UnsupportedStatement):
        settings(charset(9999, 33, 33))


def test_character_set_collations_are_set_by_name_where_the_replica_has_them() -> None:
    names = {2304: "utf8mb4_uca1400_ai_ci"}
    context = SessionContext(source_version=110800, replica_version=110800, collation_names=names)
    raw = b"\x83\x01" + struct.pack("<HH", 45, 2304)
    assert settings(raw, context)["character_set_collations"] == "'utf8mb4=utf8mb4_uca1400_ai_ci'"
    assert settings(b"", context)["character_set_collations"] == "''"
    with pytest.raises(UnsupportedStatement):
        settings(raw, replace(context, collation_names={}))


def test_mysql_gets_its_own_variables() -> None:
    found = settings(b"\x10\x00\x12\xff\x00\x13\x01", MYSQL)
    assert found["explicit_defaults_for_timestamp"] == "OFF"
    assert found["default_collation_for_utf8mb4"] == "255"
    assert found["sql_require_primary_key"] == "ON"
    assert found["restrict_fk_on_non_standard_key"] == "OFF"
    assert found["sql_generate_invisible_primary_key"] == "OFF"
    assert "sql_if_exists" not in found


def test_all_that_is_set_is_reset() -> None:
    for context in (MARIADB, MYSQL):
        first, names = reset_statements(context)
        assert names == "SET NAMES utf8mb4"
        kept = {"character_set_client", "collation_connection"}
        missing = [
            n
            for n in settings(b"", context).keys() - kept
            if f" {n} = DEFAULT" not in first and f" {n} = @@GLOBAL.{n}" not in first
        ]
        assert missing == []


@pytest.mark.parametrize(
    ("collation", "raw", "text"),
    [
        (8, b"\xe9\x80\x81", "é€\x81"),
        (33, "ж😀".encode(), "ж😀"),
        (45, b"\xff'", "\udcff'"),
        (13, b"\x83\x5c'", "ソ'"),
        (28, b"\xd5\x5c`", "誠`"),
        (51, "ж".encode("cp1251"), "ж"),
        (63, b"\xff", "ÿ"),
    ],
)
def test_statements_are_decoded_from_their_clients_charset_and_back(
    collation: int, raw: bytes, text: str
) -> None:
    event = query(charset(collation, 33, 33), raw)
    assert statement_text(event, MARIADB) == text
    assert statement_bytes(text, event, MARIADB) == raw


@given(st.binary(max_size=12), st.integers(1, 4000))
def test_decoding_is_lossless_or_refused(raw: bytes, collation: int) -> None:
    charset_name = charset_of(collation)
    if charset_name is None:
        return
    with suppress(UnsupportedStatement):
        assert encode_text(decode_text(raw, charset_name), charset_name) == raw


@pytest.mark.parametrize(
    ("collation", "name"),
    [(33, "utf8mb3"), (1069, "utf8mb4"), (255, "utf8mb4"), (2559, "utf8mb4"), (9000, None)],
)
def test_collation_ids_lead_to_their_charset(collation: int, name: str | None) -> None:
    assert charset_of(collation) == name
