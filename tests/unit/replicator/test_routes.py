from __future__ import annotations

import pytest

from replicator.binlog.position import SourcePosition
from replicator.routes import Route, Routes, Via, Window


def at(offset: int) -> SourcePosition:
    return SourcePosition("bin.000001", offset)


def routes(**options: bool) -> Routes:
    return Routes(lambda table: not table.startswith("temp"), **options)


WINDOW = Window(at(100), at(200))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (4, Via.SKIP),
        (99, Via.SKIP),
        (100, Via.RECONCILE),
        (199, Via.RECONCILE),
        (200, Via.PASS),
        (201, Via.PASS),
    ],
)
def test_a_window_skips_before_low_reconciles_from_low_and_passes_from_high(
    start: int, expected: Via
) -> None:
    known = routes()
    known.stream("patient", window=WINDOW)
    assert known.route("patient", at(start)).via is expected


@pytest.mark.parametrize(("start", "expected"), [(149, Via.SKIP), (150, Via.PASS)])
def test_a_window_that_is_a_point_never_reconciles(start: int, expected: Via) -> None:
    known = routes()
    known.stream("patient", window=Window(at(150), at(150)))
    assert known.route("patient", at(start)).via is expected


def test_a_window_may_reach_into_the_next_file() -> None:
    known = routes()
    known.stream("patient", window=Window(at(100), SourcePosition("bin.000002", 50)))
    assert known.route("patient", SourcePosition("bin.000002", 49)).via is Via.RECONCILE
    assert known.route("patient", SourcePosition("bin.000002", 50)).via is Via.PASS


def test_a_hidden_copy_takes_its_tables_rows_inside_the_window_and_behind_it() -> None:
    known = routes()
    known.stream("patient", "_resync_patient", WINDOW)
    assert known.route("patient", at(150)) == Route(Via.RECONCILE, "_resync_patient")
    assert known.route("patient", at(200)) == Route(Via.PASS, "_resync_patient")


def test_a_held_table_is_reconciled_until_it_is_let_go() -> None:
    known = routes()
    known.hold("patient")
    known.stream("patient", window=WINDOW)
    assert known.route("patient", at(200)).via is Via.PASS
    known.hold("patient")
    assert known.route("patient", at(199)) == Route(Via.RECONCILE, "patient")
    assert known.route("patient", at(200)) == Route(Via.RECONCILE, "patient", settled=True)
    assert known.inside("patient", at(300))
    assert not known.inside("patient", at(99))
    known.stream("patient", window=Window(at(100), at(400), copied=at(200)))
    assert known.route("patient", at(150)) == Route(Via.RECONCILE, "patient")
    assert known.route("patient", at(399)) == Route(Via.RECONCILE, "patient", settled=True)
    assert known.route("patient", at(400)).via is Via.PASS
    assert not known.inside("patient", at(400))


def test_a_table_that_is_skipped_or_forgotten_is_not_held() -> None:
    known = routes()
    for let_go in (known.skip, known.forget):
        known.stream("patient", window=WINDOW)
        known.hold("patient")
        let_go("patient")
        known.stream("patient", window=WINDOW)
        assert known.route("patient", at(200)).via is Via.PASS


def test_a_window_ends_where_the_stream_has_passed_its_high_end() -> None:
    known = routes()
    known.stream("patient", window=WINDOW)
    assert known.windows_passed(at(199)) == []
    assert known.windows_passed(at(200)) == ["patient"]
    known.stream("patient")
    assert known.windowed() == set()


@pytest.mark.parametrize("forget", ["skip", "forget"])
def test_a_table_that_is_no_longer_streamed_has_no_window(forget: str) -> None:
    known = routes()
    known.stream("patient", window=WINDOW)
    getattr(known, forget)("patient")
    assert known.window("patient") is None
    assert known.known("patient") is (forget == "skip")


def test_a_skipped_table_is_passed_over_everywhere() -> None:
    known = routes()
    known.skip("patient")
    assert known.skips("patient")
    assert known.route("patient", at(500)).via is Via.SKIP


def test_a_table_that_is_not_carried_is_passed_over() -> None:
    assert routes().route("tempdash", at(4)).via is Via.SKIP


def test_a_carried_table_that_the_replica_lacks_is_passed_over_and_named_for_a_copy() -> None:
    known = routes()
    assert known.route("patient", at(4)).via is Via.SKIP
    assert known.unknown == {"patient"}


def test_a_resyncs_own_stream_passes_over_all_other_tables() -> None:
    assert routes(strict=False).route("patient", at(4)).via is Via.SKIP
