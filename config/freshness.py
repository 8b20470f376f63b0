"""Up to when is what a leg has written known to be complete? Pure; one object, one thread writes.

Left: what the leg's loop notices anyway (something came, something was committed, nothing
waits). Right: a lag in seconds, asked for whenever somebody looks, so that it grows while the
loop hangs or is away.

All moments are readings of this machine's monotonic clock; `clock` turns a server's wall clock
into them. A lag is `now` less the moment up to which everything is *known* to be written:

* nothing waits, and the link was heard a moment ago: the lag is 0;
* nothing waits, but the link is silent for longer than its heartbeats allow, or is gone: what the
  other side has done since it was last heard cannot be known, so the lag counts from then. It is
  what may be missing at most;
* something waits: from the commit of what was written last, or from when the first of it came
  behind a time with nothing to do, whichever is later.

So a lag is never too small by more than `patience`, in which a dead link looks like an idle one.
No moment is later than now: one that is comes from a clock that was set and not yet read again,
and would hide every lag until then.
"""

from __future__ import annotations


class Freshness:
    """See the module. `patience`: seconds of silence in which an idle link is believed."""

    def __init__(self, patience: float, now: float) -> None:
        self.patience = patience
        self._until = now
        self._heard = now
        self._idle = False
        self.known = False
        """Is anything known but that this process began?"""

    def begin(self, moment: float, now: float) -> None:
        """Nothing is known but what is stored: all is written up to `moment`."""
        self._until, self._idle, self.known = min(moment, now), False, True

    def arrived(self, now: float) -> None:
        """Something has come that is not written yet."""
        if self.live(now):
            self._until = max(self._until, now)
        self._idle = False

    def committed(self, moment: float, now: float) -> None:
        """What the other side had committed at `moment` is written, and all before it."""
        self._until = max(self._until, min(moment, now))

    def caught_up(self, heard: float) -> None:
        """Everything is written that had come when the other side was last heard."""
        self._until = max(self._until, heard)
        self._heard, self._idle, self.known = heard, True, True

    def lost(self) -> None:
        """The link is gone."""
        self._idle = False

    def live(self, now: float) -> bool:
        """Is it believed that there is nothing to write?"""
        return self._idle and now - self._heard <= self.patience

    def until(self) -> float:
        """Up to when everything is known to be written."""
        return self._until

    def lag(self, now: float) -> float:
        """Seconds by which what is written may be behind."""
        return 0.0 if self.live(now) else max(0.0, now - self._until)


def patience(heartbeat_seconds: float) -> float:
    """How long a link with these heartbeats may be silent: half a period late, and our own turn."""
    return 1.5 * heartbeat_seconds + 1.5
