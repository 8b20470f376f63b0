"""The doctor's report as text for people; pure but for the console that it prints to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from replicator.cli.doctor import Finding, Verdict

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}

_PLACES = {"source": "on the source", "replica": "on the replica", "analytics": "in PostgreSQL"}


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """A line for each finding; below those that are not ok, what is needed and the remedy.

    What is to be pasted stands on lines of its own, so that it can be copied as it is.
    """
    for finding in findings:
        line = Text(f"{finding.verdict:<4}", style=_STYLES[finding.verdict])
        line.append(f"  {finding.server}: {finding.check}: {finding.found}", style="default")
        console.print(line, soft_wrap=True)
        if finding.verdict is not Verdict.OK:
            console.print(f"        needed: {finding.needed}", markup=False, soft_wrap=True)
            for line_of_text in _remedy(finding):
                console.print(f"        {line_of_text}", markup=False, soft_wrap=True)
    count = Counter(finding.verdict for finding in findings)
    console.print(", ".join(f"{count[verdict]} {verdict}" for verdict in Verdict))


def _remedy(finding: Finding) -> list[str]:
    lines = finding.sql or finding.my_cnf or finding.settings
    told = [f"remedy: {finding.text or 'these lines'}"] if finding.text or lines else []
    where = f"my.cnf of the {finding.server}, section [mysqld]" + (
        "" if finding.sql else ", then restart it"
    )
    for what, each in (
        (f"SQL {_PLACES.get(finding.server, finding.server)}", finding.sql),
        (where, finding.my_cnf),
        ("our environment or .env", finding.settings),
    ):
        told += [f"  {what}:", *(f"    {line}" for line in each)] if each else []
    return told
