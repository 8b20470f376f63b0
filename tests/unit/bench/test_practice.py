"""The benchmarks' data: its transactions must find the rows that they change."""

from __future__ import annotations

import re

from bench import practice


def test_of_ten_transactions_each_changes_a_row_that_an_earlier_one_inserted() -> None:
    there: set[int] = set()
    kinds = []
    for key in range(1_000, 1_010):
        statement = practice.one_row(key)
        kinds.append(statement.split()[0])
        row = practice.row_of(key)
        assert re.search(rf"(VALUES \(|PayNum = ){row}\b", statement)
        if kinds[-1] == "INSERT":
            there.add(row)
        else:
            assert row in there
        if kinds[-1] == "DELETE":
            there.remove(row)
    assert kinds == ["INSERT"] * 6 + ["UPDATE"] * 3 + ["DELETE"]


class Connection:
    """Remembers what it is told to execute."""

    def __init__(self) -> None:
        self.executed: list[str] = []

    def cursor(self) -> Connection:
        return self

    def execute(self, statement: str) -> None:
        self.executed.append(statement)

    def close(self) -> None: ...


def test_bulk_loads_name_each_key_once_from_the_first_on() -> None:
    connection = Connection()
    practice.load_narrow(connection, 12_000, first=501)
    text = " ".join(connection.executed)
    assert len(connection.executed) == 3
    assert [int(key) for key in re.findall(r"'note (\d+)'", text)] == [*range(501, 12_501)]


def test_one_row_transactions_travel_many_to_a_packet_and_none_is_lost() -> None:
    connection = Connection()
    practice.one_row_transactions(connection, 250, first=0)
    bodies = [
        packet.removeprefix("BEGIN NOT ATOMIC ").removesuffix("; END")
        for packet in connection.executed
    ]
    assert [statement for body in bodies for statement in body.split("; ")] == [
        practice.one_row(key) for key in range(250)
    ]
    assert len(bodies) == 3
