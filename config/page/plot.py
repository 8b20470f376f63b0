"""A lag's last hour as a small drawing (SVG). Pure but for the buffer, which one thread fills.

The scale is logarithmic, from a tenth of a second to a day: a second and an hour are both to be
seen, and 0 is the bottom line.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

SAMPLE_SECONDS: Final = 5.0
SPANS: Final = (60, 180, 720)
"""How many samples a drawing may be wide: five minutes, a quarter of an hour, an hour."""
SAMPLES: Final = SPANS[-1]
WIDTH, HEIGHT = 720, 120
_MARKS: Final = ((1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h"))
_LEAST, _MOST = 0.1, 86400.0


class History:
    """The last samples of a lag."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, lag: float) -> None:
        """One more."""
        self._samples.append(round(lag, 3))

    def all(self) -> list[float]:
        """All of them, the newest last."""
        return list(self._samples)


def height(lag: float) -> float:
    """How high a lag stands, from 0 to HEIGHT."""
    if lag <= _LEAST:
        return 0.0
    share = math.log(min(lag, _MOST) / _LEAST) / math.log(_MOST / _LEAST)
    return round(share * HEIGHT, 1)


def line(samples: Sequence[float], span: int = SAMPLES) -> str:
    """The points of a polyline of at most `span`; the newest sample at the right edge."""
    samples = samples[-span:]
    step = WIDTH / (span - 1)
    first = span - len(samples)
    return " ".join(
        f"{round((first + n) * step, 1):g},{HEIGHT - height(lag):g}"
        for n, lag in enumerate(samples)
    )


def drawing(series: Sequence[tuple[str, Sequence[float]]], span: int = SAMPLES) -> str:
    """The drawing of some named lags, each a line of its own class: `line0`, `line1`, …"""
    words = "; ".join(
        f"{name}: now {values[-1]:.1f} s, at most {max(values):.1f} s"
        for name, values in series
        if values
    )
    marks = " ".join(
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{HEIGHT - height(at):g}"'
        f' y2="{HEIGHT - height(at):g}"/>'
        f'<text x="2" y="{HEIGHT - height(at) - 3:g}">{label}</text>'
        for at, label in _MARKS
    )
    lines = "".join(
        f'<polyline class="line{n}" points="{line(values, span)}"/>'
        for n, (_, values) in enumerate(series)
        if values
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 4}" role="img" aria-label="Lag. {words}"'
        f' xmlns="http://www.w3.org/2000/svg">{marks}{lines}</svg>'
    )
