"""Fixtures: a trial for a whole module, made anew where a test has left it broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.sandbox.cluster import Engine
from tests.faults.trial import SETTINGS, Trial
from tests.fix_pipeline import Pipeline
from tests.fix_servers import Pair

LOG_CHARACTERS = 200_000

GetTrial = Callable[[Engine], Trial]


@pytest.fixture(scope="module")
def _trials(
    server_directory: Path, servers: Pair
) -> Iterator[tuple[dict[Engine, Trial], Callable[[Engine], Trial]]]:
    kept: dict[Engine, Trial] = {}

    def make(engine: Engine) -> Trial:
        place = server_directory / f"faults-{len(list(server_directory.iterdir()))}"
        trial = Trial(Pipeline(place, engine, servers, **SETTINGS))
        trial.__enter__()
        return trial

    yield kept, make
    for trial in kept.values():
        trial.__exit__()
        trial.pipe.close()


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    _trials: tuple[dict[Engine, Trial], Callable[[Engine], Trial]],
) -> Iterator[GetTrial]:
    """trial("MyISAM"): a running one, shared by a module's tests while they leave it whole."""
    kept, make = _trials
    used: list[Engine] = []

    def get(engine: Engine) -> Trial:
        if engine not in kept:
            kept[engine] = make(engine)
            kept[engine].start()
            kept[engine].settle()
        used.append(engine)
        return kept[engine]

    failed = request.session.testsfailed
    yield get
    if request.session.testsfailed > failed or any(kept[e].seen for e in used):
        for engine in used:
            broken = kept.pop(engine)
            for daemon in (broken.pipe.replicator, broken.pipe.loader):
                print(f"--- {daemon.program}\n{daemon.output[-LOG_CHARACTERS:]}")  # pytest shows it
            for server in broken.pipe.sandbox.servers:
                print(f"--- {server}\n{server.errors()}")
            broken.__exit__()
            broken.pipe.close()
