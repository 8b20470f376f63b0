"""What one look found: a verdict, the value found, the value needed, the lines that mend it."""

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
class Mend:
    """What mends it: lines that are pasted as they stand, and `text` for what no line can do."""

    text: str = ""
    sql: tuple[str, ...] = ()
    """Run by an administrator of the server in question."""
    my_cnf: tuple[str, ...] = ()
    """Lines for its my.cnf, section [mysqld]; a restart is needed where `sql` is empty."""
    settings: tuple[str, ...] = ()
    """Lines for our own environment or .env."""

    def __str__(self) -> str:
        cnf = "in my.cnf, section [mysqld]: " if self.sql else "In my.cnf, [mysqld], then restart: "
        parts = (
            self.text,
            " ".join(self.sql),
            self.my_cnf and cnf + ", ".join(self.my_cnf),
            self.settings and "Set " + ", ".join(self.settings),
        )
        return " ".join(str(part) for part in parts if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; `remedy` says in one piece what text and lines say."""

    server: str
    check: str
    verdict: Verdict
    found: str
    needed: str = ""
    remedy: str = ""
    text: str = ""
    sql: tuple[str, ...] = ()
    my_cnf: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def ok(server: str, check: str, found: object) -> Finding:
    """It holds."""
    return Finding(server, check, Verdict.OK, str(found))


def warn(server: str, check: str, found: object, needed: str, remedy: Mend | str) -> Finding:
    """It works, and may hurt."""
    return _wrong(Verdict.WARN, server, check, found, needed, remedy)


def fail(server: str, check: str, found: object, needed: str, remedy: Mend | str) -> Finding:
    """It keeps the pipeline from working or from being exact."""
    return _wrong(Verdict.FAIL, server, check, found, needed, remedy)


def _wrong(
    verdict: Verdict, server: str, check: str, found: object, needed: str, remedy: Mend | str
) -> Finding:
    mend = Mend(remedy) if isinstance(remedy, str) else remedy
    return Finding(
        server,
        check,
        verdict,
        str(found),
        needed,
        remedy=str(mend),
        text=mend.text,
        sql=mend.sql,
        my_cnf=mend.my_cnf,
        settings=mend.settings,
    )


def worst(findings: Iterable[Finding]) -> Verdict:
    """The report's verdict: its worst line's."""
    return max((f.verdict for f in findings), key=_SEVERITY.index, default=Verdict.OK)
