"""What one look found: a verdict, the value found, the value needed, the line that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is: `fail` keeps the pipeline from working or from being exact."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


_SEVERITY = (Verdict.OK, Verdict.WARN, Verdict.FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; `remedy` is pasted as it is, on the server named."""

    server: str
    check: str
    verdict: Verdict
    found: str
    needed: str = ""
    remedy: str = ""


def ok(server: str, check: str, found: object) -> Finding:
    """It holds."""
    return Finding(server, check, Verdict.OK, str(found))


def warn(server: str, check: str, found: object, needed: str, remedy: str) -> Finding:
    """It works, and may hurt."""
    return Finding(server, check, Verdict.WARN, str(found), needed, remedy)


def fail(server: str, check: str, found: object, needed: str, remedy: str) -> Finding:
    """It keeps the pipeline from working or from being exact."""
    return Finding(server, check, Verdict.FAIL, str(found), needed, remedy)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The report's verdict: its worst line's."""
    return max((f.verdict for f in findings), key=_SEVERITY.index, default=Verdict.OK)
