"""Both daemons under a real Prometheus, their page in a real browser, and a source that goes away.

One pipeline for all of it, as starting three servers and a first copy is most of the time.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError

import pytest

from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline
from tests.fix_proxy import NewProxy, Proxy
from tests.fix_watching import Browser, NewPrometheus, Prometheus, get, program

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus"
LAGS = '{__name__=~".+_lag_seconds"}'
SECRET = "Rumpelstilzchen"
"""A value of a row: nobody who watches may see it."""


def quick_rules(directory: Path) -> list[Path]:
    """The rules as they are deployed, only quicker: one second for each wait, a lag of 4 for 60."""
    alerts = (RULES / "alerts.yml").read_text()
    alerts, waits = re.subn(r"for: \d+[mh]", "for: 1s", alerts)
    alerts, lags = re.subn(r"pipeline_lag_seconds > 60\b", "pipeline_lag_seconds > 4", alerts)
    assert (waits > 8, lags) == (True, 1)
    recording = (RULES / "recording.yml").read_text().replace("[5m]", "[10s]")
    paths = [directory / "alerts.yml", directory / "recording.yml"]
    for path, text in zip(paths, (alerts, recording), strict=True):
        path.write_text(text)
    return paths


class Watched:
    """A pipeline that has caught up, behind a link to its source that can be broken."""

    def __init__(self, pipe: Pipeline, link: Proxy) -> None:
        self.pipe = pipe
        self.link = link
        self._visits = 0

    def visit(self) -> None:
        """Somebody works on the source."""
        self._visits += 1
        with closing(self.pipe.sandbox.source.connect(database="opendental")) as connection:
            cursor = connection.cursor()
            cursor.execute("INSERT INTO visit VALUES (%s, %s)", (self._visits, SECRET))
            cursor.execute("UPDATE patient SET LName = %s WHERE PatNum = 1", (SECRET * 2,))

    def address(self, daemon: str, path: str = "/") -> str:
        port = self.pipe.environment[f"{daemon.upper()}_METRICS_PORT"]
        return f"http://127.0.0.1:{port}{path}"

    def ready(self, daemon: str) -> str:
        try:
            return get(self.address(daemon, "/readyz?within=4"))
        except HTTPError as error:
            return f"{error.code} {error.read().decode()}"


@pytest.fixture
def watched(pipeline: NewPipeline, proxy: NewProxy) -> Watched:
    pipe = pipeline(
        "InnoDB",
        REPLICATOR_HEARTBEAT_SECONDS="0.5",
        LOADER_HEARTBEAT_SECONDS="0.5",
        REPLICATOR_COPY_GAP_SECONDS="0.05",
        REPLICATOR_POLL_SECONDS="0.1",
        LOADER_POLL_SECONDS="0.1",
    )
    link = proxy(pipe.sandbox.source.port)
    with closing(pipe.sandbox.source.connect(database="opendental")) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE patient (PatNum int PRIMARY KEY, LName varchar(60))")
        cursor.execute("INSERT INTO patient VALUES (1, %s), (2, %s)", (SECRET, SECRET))
        cursor.execute("CREATE TABLE visit (VisitNum int PRIMARY KEY, Note varchar(60))")
        cursor.execute("CREATE TABLE `<script>alert(1)</script>` (n int PRIMARY KEY)")
    pipe.replicator.start(OPENDENTAL_SOURCE_PORT=str(link.port))
    pipe.loader.start()
    pipe.catch_up()
    return Watched(pipe, link)


@pytest.mark.timeout(240)
def test_a_pipeline_is_watched_through_a_source_that_goes_away_and_comes_back(
    watched: Watched, prometheus: NewPrometheus, browser: Browser, tmp_path: Path
) -> None:
    sight = prometheus(watched.pipe, quick_rules(tmp_path))
    _sees_work(watched, sight)
    _answers_every_panel(sight)
    _shows_every_panel(sight, browser, tmp_path)
    _shows_a_page(watched, browser, tmp_path)
    for fail in (watched.link.hold, watched.link.cut):
        _notices_a_source_that_is_gone(watched, sight, fail.__name__)
    _tells_a_halt(watched, sight)


def _quiet(sight: Prometheus) -> bool:
    lags = ("replicator_lag_seconds", "loader_lag_seconds", "pipeline_lag_seconds")
    return all(sight.value(lag) == 0 for lag in lags) and not sight.firing()


def _settles(sight: Prometheus, deadline: float = 30) -> None:
    wait_until(
        lambda: _quiet(sight),
        deadline,
        what=lambda: f"no lag: {sight.query(LAGS)}, {sight.firing()}",
    )


def _sees_work(watched: Watched, sight: Prometheus) -> None:
    _settles(sight)
    watched.visit()
    rows = 'loader_table_rows_total{table="visit",operation="insert"}'
    wait_until(lambda: sight.value(rows) == 1, 20, what="a row of visit")
    for leg in ("replicator", "loader"):
        wait_until(lambda leg=leg: sight.value(f'replicator_bytes_behind{{leg="{leg}"}}') == 0, 20)
        assert sight.value(f'replicator_stream_up{{leg="{leg}"}}') == 1
        assert sight.value(f'replicator_heard_seconds{{leg="{leg}"}} < 5') is not None
        assert sight.value(f'replicator_position_bytes{{leg="{leg}"}} > 4') is not None
        assert sight.value(f'abs(replicator_clock_ahead_seconds{{leg="{leg}"}}) < 2') is not None
    file, offset = watched.pipe.sandbox.source_db.binlog_end()
    where = f'replicator_position_bytes{{leg="replicator",file="{file}"}}'
    wait_until(lambda: sight.value(where) == offset, 20, what=f"{where} {offset}")
    done = watched.pipe.run("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    same = 'replicator_verify_tables{verdict="same"}'
    wait_until(lambda: sight.value(same) == 3, 30, what="what verify found")
    _settles(sight)


def _answers_every_panel(sight: Prometheus) -> None:
    board = json.loads((DEPLOY / "grafana" / "opendental.json").read_text())
    asked = [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(asked) > 12

    def unanswered() -> list[tuple[str, str]]:
        return [
            (title, expression)
            for title, expression in asked
            if not sight.query(
                expression.replace("$__rate_interval", "10s").replace("$clinic", "main")
            )
        ]

    wait_until(lambda: not unanswered(), 30, what=lambda: f"answers to {unanswered()}")


def _shows_every_panel(sight: Prometheus, browser: Browser, tmp_path: Path) -> None:
    """In a browser, from a range of both daemons' series; drawn by a page of ours, not by Grafana.

    Prometheus serves the page as a console of its own. Where a panel has no graph, or its query
    fails, the page says `wrong`.
    """
    board = (DEPLOY / "grafana" / "opendental.json").read_text()
    for name, value in (("$__rate_interval", "10s"), ("$clinic", "main")):
        board = board.replace(name, value)
    board = re.sub(r"\{\{(\w+)\}\}", r"[[\1]]", board)  # braces are a console's own, as is <
    board = board.replace("<", "\\u003c")
    (tmp_path / "board.json").write_text(board)
    shutil.copy(Path(__file__).with_name("board.html"), tmp_path)
    url = f"http://127.0.0.1:{sight.port}/consoles/board.html"
    page = browser.dom(url, script_seconds=20)
    assert 'data-done="yes"' in page
    panels = {
        title: (verdict, drawn)
        for verdict, title, drawn in re.findall(
            r'<section class="(\w+)"[^>]*><h2>([^<]*)</h2>(.*?)</section>', page
        )
    }
    titles = [panel["title"] for panel in json.loads(board)["panels"]]
    assert list(panels) == titles
    assert {title for title, (verdict, _) in panels.items() if verdict != "drawn"} == set()
    memory, lag = panels["Memory of the daemons"][1], panels["Lag"][1]
    assert re.findall(r"<small[^>]*>([^<]*)<", memory) == ["main loader", "main replicator"]
    assert lag.count("<polyline") == 3
    assert SECRET not in page
    picture = browser.picture(url, tmp_path / "board.png", 1400, 1700, script_seconds=20)
    assert picture.startswith(b"\x89PNG")


def _shows_a_page(watched: Watched, browser: Browser, tmp_path: Path) -> None:
    for daemon in ("replicator", "loader"):
        page = browser.dom(watched.address(daemon))
        assert "caught up" in page
        assert SECRET not in page
        assert re.search(r">visit</td>", page)
        assert "<script>" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert watched.ready(daemon).startswith("ready")
        assert get(watched.address(daemon, "/healthz")) == "alive\n"
        assert SECRET not in get(watched.address(daemon, "/account.json"))
    filtered = browser.dom(watched.address("loader", "/?q=PAT&sort=rows&refresh=1"))
    assert re.findall(r'<td class="name">([^<]*)</td>', filtered) == ["patient"]
    for name, width, height in (("wide", 1200, 900), ("phone", 390, 844)):
        picture = browser.picture(
            watched.address("replicator"), tmp_path / f"{name}.png", width, height
        )
        assert picture.startswith(b"\x89PNG")


def _notices_a_source_that_is_gone(watched: Watched, sight: Prometheus, how: str) -> None:
    """The source goes on working, and we cannot know it: lags grow all the same."""
    getattr(watched.link, how)()
    watched.visit()
    wanted = {"OpenDentalSourceLinkDown", "OpenDentalBehind"}
    wait_until(
        lambda: wanted <= sight.firing(),
        40,
        what=lambda: f"{wanted}: {sight.firing()} {watched.pipe.replicator.output[-1500:]}",
    )
    for lag in ("replicator_lag_seconds", "pipeline_lag_seconds"):
        before = sight.value(lag)
        assert before is not None
        assert before > 2
        wait_until(
            lambda lag=lag, before=before: (sight.value(lag) or 0) >= before + 1, 20, what=lag
        )
    assert sight.value("loader_lag_seconds") == 0  # the replica is there, and is followed
    assert watched.ready("replicator").startswith("503 not ready")
    assert watched.ready("loader").startswith("503 not ready")
    assert "a link is down" in get(watched.address("loader"))
    watched.link.cut()
    watched.link.pass_on()
    _settles(sight, 60)
    wait_until(lambda: watched.ready("loader").startswith("ready"), 20, what="readiness")
    assert sight.value('replicator_reconnects_total{leg="replicator"} > 0') is not None


def _tells_a_halt(watched: Watched, sight: Prometheus) -> None:
    """The loader's error is shown by the replicator's page, while the loader is gone."""
    pipe = watched.pipe
    pipe.loader.stop()
    wait_until(lambda: "OpenDentalDaemonDown" in sight.firing(), 20, what="an alert")
    assert "loader does not answer" in get(watched.address("replicator"))
    pipe.loader.start(POSTGRES_ANALYTICS_DB="no_such_db")
    assert pipe.loader.wait(60) == 2
    told = 'replicator_halts_total{leg="loader",error="ConfigError",daemon="replicator"}'
    wait_until(lambda: sight.value(told) == 1, 30, what="the halt")
    page = get(watched.address("replicator"))
    assert "no_such_db" in page
    assert "Check POSTGRES_ANALYTICS_USER" in page
    pipe.loader.start()
    wait_until(
        lambda: _quiet_but_for_the_halt(sight),
        40,
        what=lambda: f"quiet: {sight.firing()} {pipe.loader.output[-1500:]}",
    )


def _quiet_but_for_the_halt(sight: Prometheus) -> bool:
    return sight.value("pipeline_lag_seconds") == 0 and sight.firing() == {"OpenDentalHalted"}


def test_the_rules_are_sound_and_do_what_their_tests_say() -> None:
    for arguments in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml", "recording.yml"],
        ["test", "rules", "tests.yml"],
    ):
        done = subprocess.run(
            [program("promtool"), *arguments],
            cwd=RULES,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_by_a_test_and_says_what_to_do() -> None:
    alerts = re.split(r"- alert: ", (RULES / "alerts.yml").read_text())[1:]
    tried = set(re.findall(r"alertname: (\w+)", (RULES / "tests.yml").read_text()))
    for alert in alerts:
        name = alert.split("\n")[0]
        assert name in tried
        assert "severity:" in alert
        assert "summary:" in alert
        assert "action:" in alert
