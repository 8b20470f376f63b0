"""The paths of a daemon's port, and what is answered to each.

/              the page of both daemons
/healthz       alive: the process answers (systemd's watchdog looks after its loop)
/readyz        200 where it has caught up within a bound, 503 where not
/metrics       for Prometheus
/account.json  for the other daemon's page
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Final, Protocol

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from config.errors import ConfigError
from config.metrics import Kept, Leg
from config.page import render
from config.page.account import Account
from config.page.peer import Cached, ask_peer
from config.page.plot import SAMPLE_SECONDS, History
from config.page.render import Wish
from config.page.server import Answer, serving
from config.settings import LoaderTuning, ReplicatorTuning, Settings

READY_SECONDS: Final = 60.0
"""How far behind a daemon may be that is called ready."""
CACHE_SECONDS: Final = 1.5


class Shown(Protocol):
    """What a leg gives to be shown; asked from other threads than its loop's."""

    def lag(self) -> float:
        """Seconds behind, now."""

    def unready(self) -> str:
        """Why it cannot be ready, whatever the lag; "" where it can."""

    def account(self) -> Account:
        """What there is to tell; may ask a database, briefly."""


class Site:
    """One daemon's answers."""

    def __init__(self, leg: Leg, shown: Shown, peer: tuple[str, int]) -> None:
        self._leg = leg
        self._shown = shown
        self._kept = Kept(leg)
        self._history = History()
        self._own = Cached(CACHE_SECONDS, self._account)
        self._peer: Cached[Account | None] = Cached(CACHE_SECONDS, lambda: ask_peer(*peer))
        self._paths: Mapping[str, Callable[[dict[str, str]], Answer]] = {
            "/": self._page,
            "/healthz": lambda _query: Answer("alive\n"),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/account.json": self._account_json,
        }

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        """What to say to a request."""
        answering = self._paths.get(path)
        if answering is None:
            known = " ".join(self._paths)
            return Answer(f"There is no {path[:64]!a} here, but {known}\n", status=HTTPStatus(404))
        return answering(query)

    def _account(self) -> Account:
        account = self._shown.account()
        account.history = self._history.all()
        return account

    def _page(self, query: dict[str, str]) -> Answer:
        accounts = {self._leg: self._own.get()}
        other: Leg = "loader" if self._leg == "replicator" else "replicator"
        peer = self._peer.get()
        if peer is not None and peer.leg == other:
            accounts[other] = peer
        body = render.page(
            self._leg,
            accounts.get("replicator"),
            accounts.get("loader"),
            Wish.of(query),
            time.time(),
        )
        policy = {"Content-Security-Policy": render.POLICY}
        return Answer(body, kind="text/html; charset=utf-8", headers=policy)

    def _ready(self, query: dict[str, str]) -> Answer:
        try:
            bound = float(query.get("within", READY_SECONDS))
        except ValueError:
            return Answer("within= takes seconds\n", status=HTTPStatus.BAD_REQUEST)
        lag, reason = self._shown.lag(), self._shown.unready()
        if not reason and lag <= bound:
            return Answer(f"ready: {lag:.1f} s behind\n")
        said = f"not ready: {reason or f'{lag:.1f} s behind, more than {bound:g} s'}\n"
        return Answer(said, status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _metrics(self, _query: dict[str, str]) -> Answer:
        return Answer(generate_latest(self._kept), kind=CONTENT_TYPE_LATEST)

    def _account_json(self, _query: dict[str, str]) -> Answer:
        return Answer(self._own.get().as_json(), kind="application/json")

    def sample(self, over: threading.Event) -> None:
        """Note the lag now and then, until it is over."""
        while not over.wait(SAMPLE_SECONDS):
            self._history.add(self._shown.lag())


@contextmanager
def shown_on(host: str, port: int, leg: Leg, shown: Shown, peer: tuple[str, int]) -> Iterator[int]:
    """Serve a leg's site while inside; yields the port. OSError where it cannot listen there."""
    site, over = Site(leg, shown, peer), threading.Event()
    sampler = threading.Thread(target=site.sample, args=(over,), name="lag sampler", daemon=True)
    with serving(host, port, site.answer) as taken:
        sampler.start()
        try:
            yield taken
        finally:
            over.set()
            sampler.join()


@contextmanager
def served(settings: Settings, leg: Leg, shown: Shown) -> Iterator[None]:
    """Serve a leg's site where the settings say, while inside; ConfigError where that is taken."""
    legs: dict[Leg, ReplicatorTuning | LoaderTuning] = {
        "replicator": settings.replicator,
        "loader": settings.loader,
    }
    tuning = legs.pop(leg)
    (other,) = legs.values()
    host, port, variable = tuning.metrics_host, tuning.metrics_port, f"{leg.upper()}_METRICS_PORT"
    with ExitStack() as stack:
        try:
            peer = (other.metrics_host, other.metrics_port)
            stack.enter_context(shown_on(host, port, leg, shown, peer))
        except OSError as error:
            raise ConfigError(
                f"{variable}={port}: cannot listen on {host}: {error.strerror}",
                f"Set {variable} to a free port, or stop what uses it.",
            ) from None
        yield
