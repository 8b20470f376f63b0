"""Batches on their way: answers in order, and nothing left behind by a failure."""

from __future__ import annotations

import base64

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import Halt
from replicator.binlog.statement import in_base64, in_base64_python
from replicator.delivery import Delivery
from replicator.inflight import InFlight

FAILED = pymysql.IntegrityError(1062, "there already")
CONSEQUENCE = pymysql.InternalError(1032, "not found")


class Wire:
    """Answers as it is told to; None is an OK."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.numbers: list[int] = []
        self.commands: list[tuple[int, bytes]] = []
        self._next_seq_id = 0
        self._sock: object | None = None

    def _execute_command(self, command: int, content: bytes) -> None:
        self.commands.append((command, content))
        self._next_seq_id = 1 + len(content) // 100

    def _read_query_result(self) -> None:
        self.numbers.append(self._next_seq_id)
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


def sent(wire: Wire, count: int) -> InFlight[str]:
    wire._sock = object()
    flight: InFlight[str] = InFlight(wire)
    for number in range(count):
        flight.send([(3, b"x" * 100 * number)], f"batch {number}")
    return flight


def test_answers_come_in_the_order_of_sending() -> None:
    wire = Wire(None, None, None)
    flight = sent(wire, 3)
    assert [flight.receive() for _ in range(3)] == ["batch 0", "batch 1", "batch 2"]
    assert not flight


def test_each_answer_follows_on_its_own_commands_packets() -> None:
    wire = Wire(None, None, None)
    flight = sent(wire, 3)
    while flight:
        flight.receive()
    assert wire.numbers == [1, 2, 3]


def test_the_first_error_is_raised_once_all_others_are_answered() -> None:
    wire = Wire(None, FAILED, CONSEQUENCE)
    flight = sent(wire, 3)
    assert flight.receive() == "batch 0"
    with pytest.raises(pymysql.IntegrityError) as caught:
        flight.receive()
    assert caught.value is FAILED
    assert flight.oldest == "batch 1"
    assert wire.answers == []


def test_a_batch_that_succeeds_behind_one_that_failed_halts() -> None:
    flight = sent(Wire(FAILED, None), 2)
    with pytest.raises(Halt, match="though the one before it had failed"):
        flight.receive()


def test_a_link_that_breaks_is_not_read_again() -> None:
    wire = Wire(pymysql.OperationalError(2013, "lost"))
    flight = sent(wire, 2)
    wire._sock = None
    with pytest.raises(pymysql.OperationalError):
        flight.receive()


@pytest.mark.parametrize("answers", [(FAILED, None, CONSEQUENCE), (None, FAILED, CONSEQUENCE)])
def test_a_batch_of_several_commands_fails_with_any_of_them(
    answers: tuple[Exception | None, ...],
) -> None:
    wire = Wire(*answers)
    wire._sock = object()
    flight: InFlight[str] = InFlight(wire)
    flight.send([(0x17, b"a"), (0x17, b"b"), (3, b"BINLOG @a, @b")], "batch")
    with pytest.raises(pymysql.IntegrityError):
        flight.receive()
    assert wire.answers == []


def test_a_batch_whose_set_failed_and_whose_binlog_did_not_halts() -> None:
    wire = Wire(FAILED, None)
    wire._sock = object()
    flight: InFlight[str] = InFlight(wire)
    flight.send([(0x17, b"a"), (3, b"BINLOG @a, @b")], "batch")
    with pytest.raises(Halt):
        flight.receive()


def test_there_is_no_answer_to_nothing() -> None:
    assert not InFlight(Wire()).answered()


class Server:
    """Prepares what it is asked to, and tells its family."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.prepared: list[str] = []

    def get_server_info(self) -> str:
        return self.version

    def _execute_command(self, command: int, content: str) -> None:
        assert command == 0x16
        self.prepared.append(content)

    def _read_packet(self) -> Server:
        return self

    def get_all_data(self) -> bytes:
        return b"\0" + len(self.prepared).to_bytes(4, "little") + b"\0\0\1\0\0\0\0"


def test_few_events_stand_in_the_statement() -> None:
    server = Server("10.11.6-MariaDB")
    assert Delivery(server).commands(b"abc") == [(3, b"BINLOG 'YWJj'")]
    assert server.prepared == []


def test_many_events_go_by_variables_that_are_prepared_once() -> None:
    server = Server("5.5.5-10.11.6-MariaDB")
    delivery = Delivery(server)
    for _ in range(2):
        first, second, last = delivery.commands(bytes(60_000))
        assert last == (3, b"BINLOG @etl_events_1, @etl_events_2")
        assert [command for command, _ in (first, second)] == [0x17, 0x17]
        assert first[1][:5] == b"\1\0\0\0\0"
        assert first[1][10:13] == b"\1\xfc\0"
        texts = [content[13 + 9 :] for _, content in (first, second)]
        assert b"".join(texts) == b"A" * 80_000
    assert server.prepared == ["SET @etl_events_1 = ?", "SET @etl_events_2 = ?"]


def test_mysql_gets_all_events_in_the_statement() -> None:
    server = Server("9.7.4")
    [(command, statement)] = Delivery(server).commands(bytes(60_000))
    assert (command, statement[:8], len(statement)) == (3, b"BINLOG '", 80_009)
    assert server.prepared == []


@given(st.binary(max_size=200), st.data())
def test_any_part_of_the_events_is_base64_between_its_ends(
    events: bytes, chosen: st.DataObject
) -> None:
    start = chosen.draw(st.integers(0, len(events)))
    end = chosen.draw(st.integers(start, len(events)))
    wanted = b"<" + base64.b64encode(events[start:end]) + b"/>"
    assert in_base64(events, start, end, b"<", b"/>") == wanted
    assert in_base64_python(events, start, end, b"<", b"/>") == wanted


@pytest.mark.skipif(in_base64 is in_base64_python, reason="built without a compiler")
@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 4), (4, 4)])
def test_nothing_beside_the_events_is_read(start: int, end: int) -> None:
    with pytest.raises(IndexError):
        in_base64(b"abc", start, end, b"", b"")


def test_both_variables_hold_the_events_without_padding_in_between() -> None:
    events = bytes(range(256)) * 160 + b"ended"
    commands = Delivery(Server("5.5.5-10.11.6-MariaDB")).commands(events)
    texts = [content[13 + 9 :] for _, content in commands[:2]]
    lengths = [int.from_bytes(content[14:22], "little") for _, content in commands[:2]]
    assert lengths == [len(text) for text in texts]
    assert base64.b64decode(b"".join(texts), validate=True) == events
