"""A leg's link to the server whose binlog it reads: is it alive, and how far behind is the leg?

Left: what the leg's loop keeps here (`fresh`, and the stream while one is open), a `Lookout` of
the server, and the place up to which the leg has written. Right: the same answers for both legs,
as metrics and on the status page, asked from other threads whenever somebody looks.

What cannot be told is None, and then the metric is absent: a 0 would be a lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from config import metrics
from config.freshness import Freshness
from config.page.account import Account
from replicator.binlog.lookout import Lookout, bytes_behind, purge_in, transactions_behind
from replicator.binlog.position import BinlogPosition


class Heard(Protocol):
    """A stream that is open."""

    @property
    def heard(self) -> float:
        """When something came last, a heartbeat at least, by our monotonic clock."""


class Place(NamedTuple):
    """Up to where everything is written; `gtids` as a set, "" where there are none."""

    position: BinlogPosition
    gtids: str
    began: int
    """When the server began the position's file, in seconds since 1970 by its clock; 0: unknown."""


class Link:
    """See the module; `stream` and `fresh` are for the loop's thread to keep."""

    def __init__(
        self,
        leg: metrics.Leg,
        fresh: Freshness,
        lookout: Lookout,
        place: Callable[[], Place | None],
    ) -> None:
        """`place` is asked whenever somebody looks; None before anything is known."""
        self.leg = leg
        self.fresh = fresh
        self.lookout = lookout
        self.stream: Heard | None = None
        self._place = place

    def tell(self) -> None:
        """Answer for the leg's metrics from now on."""
        metrics.STREAM_UP.tell(lambda: self._of_leg(float(self.streaming)))
        metrics.HEARD_AGE.tell(lambda: self._of_leg(self.heard_age()))
        metrics.BYTES_BEHIND.tell(lambda: self._of_leg(self.bytes_behind()))
        metrics.TRANSACTIONS_BEHIND.tell(lambda: self._of_leg(self.transactions_behind()))
        metrics.PURGE_IN.tell(lambda: self._of_leg(self.purge_in()))
        metrics.CLOCK_AHEAD.tell(lambda: self._of_leg(self.clock_ahead()))
        metrics.POSITION.tell(self._position)

    def describe(self, account: Account) -> None:
        """The same for the status page."""
        place = self._place()
        account.position = str(place.position) if place else ""
        account.link_up = self.streaming
        account.heard = self.heard_age()
        account.bytes_behind = self.bytes_behind()
        account.transactions_behind = self.transactions_behind()
        account.purge_in = self.purge_in()

    def lag(self) -> float:
        """Seconds from a commit on that server until the leg has written it."""
        return self.fresh.lag(time.monotonic())

    @property
    def streaming(self) -> bool:
        """Is the stream open, and was something heard in time?"""
        age = self.heard_age()
        return age is not None and age <= self.fresh.patience

    def heard_age(self) -> float | None:
        """Seconds since the server was last heard on the stream; None where there is none."""
        stream = self.stream
        return None if stream is None else max(0.0, time.monotonic() - stream.heard)

    def bytes_behind(self) -> float | None:
        """Bytes of the server's binlog that are not written, as the server told last."""
        sight, place = self.lookout.sight, self._place()
        if sight.end is None or place is None:
            return None
        return bytes_behind(sight.files, place.position, sight.end)

    def transactions_behind(self) -> float | None:
        """Transactions of the server that are not written."""
        sight, place = self.lookout.sight, self._place()
        if sight.end is None or place is None:
            return None
        if sight.end <= place.position:
            return 0
        return transactions_behind(place.gtids, sight.gtids)

    def purge_in(self) -> float | None:
        """Seconds until the server may purge the file that is needed next."""
        lookout, place = self.lookout, self._place()
        if place is None:
            return None
        began = lookout.clock.moment(place.began) if place.began else None
        now = time.monotonic()
        return purge_in(lookout.sight, lookout.rotations, place.position, began, now)

    def clock_ahead(self) -> float | None:
        """How far the server's clock is ahead of this machine's."""
        clock = self.lookout.clock
        return clock.wall(time.monotonic()) - time.time() if clock.known else None

    def close(self) -> None:
        """The session is over: nothing is heard any more."""
        self.fresh.lost()
        self.lookout.close()
        self.stream = None

    def _position(self) -> metrics.Values:
        place = self._place()
        if place is None:
            return None
        return {(self.leg, place.position.file): float(place.position.offset)}

    def _of_leg(self, value: float | None) -> metrics.Values:
        return None if value is None else {(self.leg,): value}
