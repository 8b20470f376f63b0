"""What `verify` found, as plain values: a verdict for each table and each pair of servers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SAME, DIFFERENT, UNSETTLED, NOT_COMPARABLE = "same", "different", "unsettled", "not comparable"
_ORDER = (SAME, UNSETTLED, NOT_COMPARABLE, DIFFERENT)


@dataclass(slots=True)
class Comparison:
    """One pair of servers, one table. `keys` says which rows and how, never what they hold."""

    verdict: str = SAME
    reasons: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)

    def worsen(self, verdict: str, reason: str = "") -> None:
        """Let the verdict be at least as bad as this one."""
        self.verdict = max(self.verdict, verdict, key=_ORDER.index)
        if reason and reason not in self.reasons:
            self.reasons.append(reason)


@dataclass(slots=True)
class TableReport:
    """One table: rows counted on the source, chunks that they were compared in."""

    name: str
    rows: int = 0
    chunks: int = 0
    replica: Comparison = field(default_factory=Comparison)
    """Source against replica."""
    raw: Comparison = field(default_factory=Comparison)
    """Replica against raw."""

    @property
    def verdict(self) -> str:
        """The worse of the two."""
        return max(self.replica.verdict, self.raw.verdict, key=_ORDER.index)


@dataclass(frozen=True, slots=True)
class Mended:
    """What `verify --repair` has had done about one table."""

    table: str
    side: str
    """"replica": the replica's rows were wrong; "raw": only those in `raw`."""
    rows: int
    """Rows that were mended by key, or copied where the whole table was reloaded by leg 1."""
    whole: bool = False
    reason: str | None = None
    """Why the whole table was reloaded."""


@dataclass(slots=True)
class Report:
    """The whole comparison."""

    tables: list[TableReport] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""
    """Why it ended early, where it did."""
    mended: list[Mended] | None = None
    """None where nothing was to be mended."""

    def exact(self, *, strict: bool = False) -> bool:
        """Is everything the same? Rows that never stood still only count when `strict`."""
        fine = (SAME,) if strict else (SAME, UNSETTLED)
        return not self.stopped and all(table.verdict in fine for table in self.tables)

    def as_json(self, *, strict: bool = False) -> dict[str, Any]:
        """Plain values, the verdicts included."""
        tables = [{**asdict(table), "verdict": table.verdict} for table in self.tables]
        document = {
            "exact": self.exact(strict=strict),
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped or None,
            "tables": tables,
        }
        if self.mended is not None:
            document["mended"] = [asdict(one) for one in self.mended]
        return document
