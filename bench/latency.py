"""Source commit → visible in `raw`, transaction by transaction, at a steady rate.

A writer commits one-row transactions by a schedule that does not wait for anybody (open loop),
and notes the time just before it sends each: the source's own commit is part of the figure.
When a row became visible PostgreSQL tells afterwards: with `track_commit_timestamp` on,
`pg_xact_commit_timestamp(xmin)` is the commit time of the transaction that wrote the row's
present version, on the same clock. So nobody polls while it is measured; that the two agree is
checked with a reader that does, on a few rows at the end.

Of ten transactions six insert, three update, one deletes (`bench.practice`). A row tells of the
last transaction that wrote it, so that five of ten are seen: two inserts and three updates.
A further pass listens to the replica's binlog as well, which tells where the time goes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from bench import practice
from bench.ear import Ear
from bench.measure import Result, described
from bench.rig import PINNING, Rig, Spent

BUSY_A_SECOND, BUSY_SECONDS = 300, 20
IDLE_A_SECOND, IDLE_SECONDS = 1, 12
SPLIT_SECONDS = 4
CHECKED_ROWS = 20
_KEYS_A_PASS = 1_000_000


def run() -> Iterator[Result]:
    """The figures at both rates; servers of their own are started and stopped."""
    with Rig({"postgres": {"track_commit_timestamp": "on"}}) as rig:
        with closing(rig.connect()) as connection:
            practice.create(connection)
        rig.start()
        _pass(rig, 1, BUSY_A_SECOND, 1)  # both daemons have seen such a row before it counts
        busy, spent, late = _pass(rig, 2, BUSY_A_SECOND, BUSY_SECONDS)
        details = {
            "transactions_a_second": BUSY_A_SECOND,
            "samples": len(busy),
            "max_ms": _ms(busy, 1.0),
            "writer_late_p99_ms": late,
            "runs": described(spent.runs(BUSY_A_SECOND * BUSY_SECONDS)),
            "split": _split(rig, 3),
            "reader_minus_timestamp_ms": _reader_agrees(rig, 4),
            "pinning": PINNING,
        }
        yield Result("latency_p50_ms", _ms(busy, 0.5), details=details)
        yield Result("latency_p99_ms", _ms(busy, 0.99), details={"samples": len(busy)})
        idle, spent, late = _pass(rig, 5, IDLE_A_SECOND, IDLE_SECONDS)
        details = {
            "transactions_a_second": IDLE_A_SECOND,
            "samples": len(idle),
            "writer_late_p99_ms": late,
            "runs": described(spent.runs(IDLE_A_SECOND * IDLE_SECONDS)),
        }
        yield Result("latency_idle_p50_ms", _ms(idle, 0.5), details=details)
        yield Result("latency_idle_p99_ms", _ms(idle, 0.99), details={"samples": len(idle)})


def _pass(rig: Rig, number: int, rate: int, seconds: int) -> tuple[list[float], Spent, float]:
    """Latencies in seconds, what it cost, and by how many ms the writer was late at worst."""
    first = number * _KEYS_A_PASS
    meter = rig.meter()
    sent, late = _written(rig, first, rate, seconds, inserts_only=rate == IDLE_A_SECOND)
    spent = meter.read()
    return list(_latencies(rig, sent).values()), spent, _ms(late, 0.99)


def _written(
    rig: Rig, first: int, rate: int, seconds: int, *, inserts_only: bool
) -> tuple[dict[int, float], list[float]]:
    """Commit by schedule; when each key was last written, by our clock, and the delays."""
    sent: dict[int, float] = {}
    late: list[float] = []
    with closing(rig.connect()) as connection, closing(connection.cursor()) as cursor:
        begin = time.time() + 0.05
        for turn in range(rate * seconds):
            number = first + (turn * 10 if inserts_only else turn)
            statement = practice.one_row(number)
            due = begin + turn / rate
            _sleep_until(due)
            now = time.time()
            cursor.execute(statement)
            late.append(now - due)
            sent[practice.row_of(number)] = now
    rig.settle()
    return sent, late


def _sleep_until(due: float) -> None:
    left = due - time.time()
    if left > 0:
        time.sleep(left)


def _latencies(rig: Rig, sent: Mapping[int, float]) -> dict[int, float]:
    low, high = min(sent), max(sent)
    rows = rig.query_as_superuser(
        'SELECT "PayNum", extract(epoch FROM pg_xact_commit_timestamp(xmin))'
        f' FROM raw."{practice.NARROW}" WHERE "PayNum" BETWEEN {low} AND {high}'
    )
    return {key: float(shown) - sent[key] for key, shown in rows}


def _split(rig: Rig, number: int) -> dict[str, float]:
    """Medians of both halves: source → replica's binlog, and from there → `raw`; milliseconds."""
    with Ear(rig) as ear:
        sent, _ = _written(
            rig, number * _KEYS_A_PASS, BUSY_A_SECOND, SPLIT_SECONDS, inserts_only=False
        )
        heard = ear.heard(max(sent))
    whole = _latencies(rig, sent)
    keys = whole.keys() & heard.keys()
    leg_1 = [heard[key] - sent[key] for key in keys]
    leg_2 = [sent[key] + whole[key] - heard[key] for key in keys]
    return {
        "leg1_p50_ms": _ms(leg_1, 0.5),
        "leg1_p99_ms": _ms(leg_1, 0.99),
        "leg2_p50_ms": _ms(leg_2, 0.5),
        "leg2_p99_ms": _ms(leg_2, 0.99),
        "replica_transactions_a_second": round(ear.transactions / SPLIT_SECONDS),
        "samples": len(keys),
    }


def _reader_agrees(rig: Rig, number: int) -> float:
    """How much later than its commit timestamp a polling reader saw a row: the median in ms."""
    first = number * _KEYS_A_PASS
    seen: dict[int, float] = {}
    last = first + (CHECKED_ROWS - 1) * 10
    reader = threading.Thread(target=_poll, args=(rig, first, last, seen))
    reader.start()
    sent, _ = _written(rig, first, 10, CHECKED_ROWS // 10, inserts_only=True)
    reader.join()
    shown = _latencies(rig, sent)
    return _ms([seen[key] - sent[key] - shown[key] for key in shown if key in seen], 0.5)


def _poll(rig: Rig, first: int, last: int, seen: dict[int, float]) -> None:
    database = rig.sandbox.analytics_db
    newest = f'SELECT max("PayNum") FROM raw."{practice.NARROW}" WHERE "PayNum" BETWEEN %s AND %s'
    deadline = time.monotonic() + 30
    with closing(database.connect(autocommit=True)) as connection:
        while last not in seen and time.monotonic() < deadline:
            row = connection.execute(newest.encode(), [first, last], prepare=True).fetchone()
            if row is not None and row[0] is not None:
                seen.setdefault(row[0], time.time())
            time.sleep(0.0005)


def _ms(values: Sequence[float], share: float) -> float:
    """A percentile, in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)
