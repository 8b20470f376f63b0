"""Columns that look like patient data and reach PostgreSQL as they are. Pure.

Left: the source's tables with their columns, and the rules. Right: findings. A name is a hint
and no proof: what it means is the practice's to say, and a rule says it, "keep" among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from config.tables import TableRules
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, ok, warn

_WORDS = re.compile(
    r"ssn|social.?sec|^(l|f|first|last|middle|maiden)_?name|middlei$|preferred$|salutation"
    r"|patientname|address|^city$|^zip|postal|^county$|phone$|phone2$|phonenumber|mobile(num|phone)"
    r"|fax$|e?mail$|subscriberid|medicaidid|chartnumber|license|deanum|policynum"
    r"|(^|[a-z])notes?$|comments?$|narrative|signature|fieldvalue|valuestring|^value$"
    r"|logtext|m(sg|essage)text|bodytext|^body$|^subject$|rawmessage|rawemail|rawbase64|thumbnail"
    r"|passw|passcode|secret|token$|api_?key|ccnumber|cardnum|accountnum|ip_?addr|url$",
    re.IGNORECASE,
)
_DAYS = re.compile(r"birth|dob$|deceased|death", re.IGNORECASE)
_DATES = frozenset({"date", "datetime", "timestamp"})


def privacy_findings(facts: MySQLFacts, rules: TableRules, server: str) -> Iterator[Finding]:
    """What no rule has an opinion on, and what rules have an opinion on that is not there."""
    tables = {t.name: t.columns for t in facts.tables if rules.carries(t.name)}
    bare = [
        f"{table}.{column}"
        for table, columns in tables.items()
        for column in _unruled(rules, table, columns)
    ]
    if not rules.privacy:
        count = f"{len(bare)} columns look like patient data" if bare else "none seen"
        yield ok(server, "masked columns", f"no column is masked; {count} (docs/privacy.md)")
        return
    idle = [str(rule) for rule in rules.privacy.idle({t: list(c) for t, c in tables.items()})]
    if idle:
        yield warn(
            server,
            "masks",
            f"rules that match no column: {', '.join(idle)}",
            "rules whose tables and columns there are",
            "Mend their names in tables.toml, or take them out.",
        )
    masked = sum(len(rules.privacy.masks(table, columns)) for table, columns in tables.items())
    if bare:
        yield warn(
            server,
            "unmasked columns that look like patient data",
            ", ".join(bare),
            "a rule for each",
            'Add them to tables.toml under [mask.<table>]; "keep" says that one may go as it is.',
        )
    yield ok(server, "masked columns", masked)


def _unruled(rules: TableRules, table: str, columns: dict[str, str]) -> list[str]:
    looks = [name for name, kind in columns.items() if _looks(name, kind)]
    ruled = rules.privacy.deciding(table, looks)
    return [name for name in looks if name not in ruled]


def _looks(name: str, kind: str) -> bool:
    if kind in _DATES:
        return bool(_DAYS.search(name))
    textual = kind.endswith(("char", "text", "blob", "binary")) or kind in ("json", "enum")
    return textual and bool(_WORDS.search(name) or _DAYS.search(name))
