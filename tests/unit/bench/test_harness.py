"""The benchmark harness: nothing is timed here, only promised, judged and printed."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from types import ModuleType

import pytest

from bench import __main__ as harness
from bench.goals import GOALS, MODULES, is_met
from bench.measure import Result, Run, described, median, rounds

WANTED = {
    "leg1_oltp_vs_native": "≤ 0.6",
    "leg1_oltp_vs_parallel": "≤ 0.8",
    "leg1_bulk_vs_native": "≤ 1.0",
    "leg2_bulk_vs_postgres": "≤ 1.25",
    "leg2_oltp_vs_postgres": "≤ 1.25",
    "decode_wide_vs_mysql_replication": "≥ 100",
    "decode_narrow_vs_mysql_replication": "≥ 30",
    "copy_leg1_vs_dump": "≤ 1.0",
    "copy_436_tables_vs_dump": "≤ 2.0",
    "copy_leg2_vs_pgloader": "≤ 0.5",
    "pipeline_wide_rows_s": "≥ 50,000",
    "pipeline_narrow_rows_s": "≥ 300,000",
    "pipeline_oltp_trx_s": "≥ 23,000",
    "latency_p50_ms": "≤ 30",
    "latency_p99_ms": "≤ 150",
    "rss_leg1_mb": "≤ 256",
    "rss_leg2_mb": "≤ 256",
}
"""What the project promises; nobody loosens a goal in one place alone."""


def test_every_promised_figure_has_its_promised_goal() -> None:
    assert {bench: GOALS.get(bench) for bench in WANTED} == WANTED
    assert {"scaling_rows", "scaling_tables", "scaling_binlog"} <= set(GOALS)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_list_can_be_run(name: str) -> None:
    assert callable(import_module(f"bench.{name}").run)


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (0.6, "≤ 0.6", True),
        (0.61, "≤ 0.6", False),
        (50_000, "≥ 50,000", True),
        (49_999.9, "≥ 50,000", False),
        (1.25, "flat, ≤ 1.25", True),
        (3.0, "—", None),
    ],
)
def test_a_goal_is_judged_at_its_bound(value: float, goal: str, met: bool | None) -> None:
    assert is_met(value, goal) is met


def test_a_module_cannot_loosen_its_goal() -> None:
    assert Result("rss_leg1_mb", 300, "≤ 512").met is False


def test_a_line_is_one_json_object_with_the_id_and_the_value() -> None:
    runs = described({"ours": Run(100, 2.0, 1.5, 30.25)})
    line = Result("latency_p50_ms", 12.5, details={"samples": 3, "runs": runs}).line()
    assert "\n" not in line
    assert json.loads(line) == {
        "bench": "latency_p50_ms",
        "value": 12.5,
        "goal": "≤ 30",
        "met": True,
        "samples": 3,
        "runs": {
            "ours": {
                "rate": 50, "units": 100, "seconds": 2.0, "cpu_seconds": 1.5, "peak_mib": 30.25
            }
        },
    }  # fmt: skip


def test_a_figure_without_a_goal_is_not_judged() -> None:
    assert json.loads(Result("extra", 1.0).line()) == {"bench": "extra", "value": 1.0}


def test_the_median_run_is_shown_with_the_highest_peak() -> None:
    found = [Run(10, seconds, 1.0, peak) for seconds, peak in ((1.0, 5.0), (3.0, 9.0), (2.0, 7.0))]
    assert median(found) == Run(10, 2.0, 1.0, 9.0)


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        ([], list(MODULES)),
        (["latency", "decode"], ["decode", "latency"]),
        (["pipeline_oltp_trx_s"], ["pipeline"]),
    ],
)
def test_modules_are_chosen_by_their_name_or_by_a_figure(
    names: list[str], modules: list[str]
) -> None:
    assert harness.chosen(names) == modules


def test_the_list_names_every_figure_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(bench in listed for bench in GOALS)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        harness.main(["latencies"])
    assert refused.value.code == 2
    assert "no such benchmark: latencies" in capsys.readouterr().err


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Result]]:
    """Benchmarks that yield what a test puts here; one that it leaves out breaks at import."""
    results: dict[str, list[Result]] = {}
    for name in MODULES:
        module = ModuleType(f"bench.{name}")
        module.__dict__["run"] = lambda name=name: iter(results[name])
        monkeypatch.setitem(sys.modules, f"bench.{name}", module)
    monkeypatch.setenv("BENCH_RUNS", "3")
    return results


def test_standard_output_holds_json_lines_alone(
    pretend: dict[str, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = described({"ours": Run(100, 2.0, 1.5, 30.25)})
    pretend["copy_leg2"] = [Result("copy_leg2_vs_pgloader", 0.4, details={"runs": runs})]
    assert harness.main(["copy_leg2"]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["bench"] for line in printed.out.splitlines()] == [
        "copy_leg2_vs_pgloader"
    ]
    assert "copy_leg2_vs_pgloader" in printed.err
    assert " met " in printed.err


def test_a_goal_that_is_missed_is_shown_and_is_no_failure_of_the_run(
    pretend: dict[str, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    pretend["copy_leg2"] = [Result("copy_leg2_vs_pgloader", 0.9)]
    assert harness.main(["copy_leg2"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["met"] is False
    assert "NOT MET" in printed.err


def test_a_broken_benchmark_keeps_none_of_the_others_from_running(
    pretend: dict[str, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    pretend["leg2"] = [Result("leg2_bulk_vs_postgres", 1.1), Result("leg2_oltp_vs_postgres", 1.2)]
    assert harness.main(["leg1", "leg2"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "not measured: leg1_oltp_vs_native, leg1_oltp_vs_parallel" in printed.err


def test_a_figure_that_did_not_come_is_told(
    pretend: dict[str, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    pretend["leg2"] = [Result("leg2_bulk_vs_postgres", 1.1)]
    assert harness.main(["leg2"]) == 1
    assert "not measured: leg2_oltp_vs_postgres" in capsys.readouterr().err


def test_runs_says_how_many_each_median_is_taken_of(
    pretend: dict[str, list[Result]], capsys: pytest.CaptureFixture[str]
) -> None:
    pretend["copy_leg2"] = [Result("copy_leg2_vs_pgloader", 0.4)]
    assert rounds() == 3
    harness.main(["--runs", "5", "copy_leg2"])
    assert rounds() == 5
