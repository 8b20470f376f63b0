"""The doctor's report as text for people; pure but for the console that it prints to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from replicator.cli.doctor import Finding, Verdict

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """A line for each finding, with what is needed and the remedy below those that are not ok."""
    for finding in findings:
        line = Text(f"{finding.verdict:<4}", style=_STYLES[finding.verdict])
        line.append(f"  {finding.server}: {finding.check}: {finding.found}", style="default")
        console.print(line, soft_wrap=True)
        if finding.verdict is not Verdict.OK:
            console.print(f"        needed: {finding.needed}", markup=False, soft_wrap=True)
            console.print(f"        remedy: {finding.remedy}", markup=False, soft_wrap=True)
    count = Counter(finding.verdict for finding in findings)
    console.print(", ".join(f"{count[verdict]} {verdict}" for verdict in Verdict))
