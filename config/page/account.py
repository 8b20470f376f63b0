"""What one daemon tells of itself: plain values, in JSON for the other daemon's page. Pure.

No value of a row is in it: names of tables, counts, positions, times, and our own messages.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MOST_TABLES: Final = 5000
MOST_HALTS: Final = 20
_LONG: Final = 4000


@dataclass(frozen=True, slots=True)
class TableLine:
    """A table as one leg knows it."""

    name: str
    state: str
    rows: int = 0
    changed: str = ""
    """When it changed last, ISO 8601 in UTC."""
    digest: str = ""
    """The schema's hash, its beginning."""


@dataclass(frozen=True, slots=True)
class CopyLine:
    """A copy under way."""

    what: str
    rows: int
    expected: int
    left: str = ""
    unit: str = "rows"


@dataclass(frozen=True, slots=True)
class HaltLine:
    """A stop that needed an operator; times in seconds since 1970."""

    leg: str
    error: str
    message: str
    remedy: str
    at: float


@dataclass(slots=True)
class Account:
    """See the module. What is not known is None."""

    leg: str
    lag: float | None = None
    link_up: bool = False
    heard: float | None = None
    position: str = ""
    whole_lag: float | None = None
    """Of the whole way, as the loader knows it."""
    bytes_behind: float | None = None
    transactions_behind: float | None = None
    purge_in: float | None = None
    doing: str = ""
    ready: bool = False
    tables: list[TableLine] = field(default_factory=list)
    tables_told: bool = False
    """Could the tables be read?"""
    copies: list[CopyLine] = field(default_factory=list)
    halts: list[HaltLine] = field(default_factory=list)
    quarantined: int = 0
    verified: str = ""
    history: list[float] = field(default_factory=list)
    """Lags of the last time, the newest last."""

    def as_json(self) -> str:
        """For the other daemon."""
        known = {k: v for k, v in asdict(self).items() if v != float("inf")}
        return json.dumps(known, allow_nan=False, separators=(",", ":"))


def from_json(text: str) -> Account:
    """What the other daemon told; raises ValueError where it is something else."""
    try:
        told: dict[str, Any] = json.loads(text)
        told["tables"] = [TableLine(**line) for line in told["tables"][:MOST_TABLES]]
        told["copies"] = [CopyLine(**line) for line in told["copies"]]
        told["halts"] = [HaltLine(**line) for line in told["halts"][:MOST_HALTS]]
        return Account(**told)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not an account of ours: {type(error).__name__}") from None
