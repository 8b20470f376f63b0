"""Fixtures: a trial for a whole module, made anew where a test has left it broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.sandbox.cluster import Engine
from tests.faults.trial import SETTINGS, Trial
from tests.fix_pipeline import Pipeline
from tests.fix_proxy import Proxy
from tests.fix_servers import Pair

LOG_CHARACTERS = 200_000

GetTrial = Callable[[Engine], Trial]
Linked = tuple[Trial, dict[str, Proxy]]
"""A trial whose daemons reach their servers by proxies, and these by the link's name."""


@pytest.fixture(scope="module")
def _trials(
    request: pytest.FixtureRequest, server_directory: Path, servers: Pair
) -> Iterator[tuple[dict[Engine, Trial], Callable[[Engine], Trial]]]:
    kept: dict[Engine, Trial] = {}
    durable = getattr(request.module, "DURABLE", False)

    def make(engine: Engine) -> Trial:
        place = server_directory / f"faults-{len(list(server_directory.iterdir()))}"
        trial = Trial(Pipeline(place, engine, servers, durable=durable, **SETTINGS))
        trial.__enter__()
        return trial

    yield kept, make
    for trial in kept.values():
        trial.end()


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
        for engine in set(used):
            broken = kept.pop(engine)
            for daemon in (broken.pipe.replicator, broken.pipe.loader):
                print(f"--- {daemon.program}\n{daemon.output[-LOG_CHARACTERS:]}")  # pytest shows it
            for server in broken.pipe.sandbox.servers:
                print(f"--- {server}\n{server.errors()}")
            broken.end()


@pytest.fixture
def linked(trial: GetTrial) -> Iterator[Callable[[Engine], Linked]]:
    """linked("InnoDB"): the links stay with the trial, and are whole after each test."""
    used: list[Trial] = []

    def get(engine: Engine) -> Linked:
        the = trial(engine)
        used.append(the)
        if not the.links:
            the.link()
            for daemon in the.daemons:
                the.restart_and_wait(daemon)
        return the, the.links

    yield get
    for the in used:
        for link in the.links.values():
            link.pass_on()
