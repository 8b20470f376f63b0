"""The page: two accounts in, HTML out. Pure.

Plain HTML first: without its style it reads from top to bottom in a terminal's browser. Sorting
and filtering are links and a form, answered here; there is no script. Every text that comes from
elsewhere is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final
from urllib.parse import urlencode

from config.page import plot
from config.page.account import Account, CopyLine, HaltLine
from config.page.style import STYLE

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
MOST_ROWS: Final = 1000
_REFRESH: Final = 10
_HALTS_SHOWN: Final = 5
_LINES: Final = {"replicator": "source → replica", "loader": "source → raw"}


@dataclass(frozen=True, slots=True)
class Row:
    """A table in both legs."""

    name: str
    replica: str = ""
    raw: str = ""
    rows: int = 0
    changed: str = ""
    digest: str = ""
    raw_digest: str = ""

    @property
    def quiet(self) -> bool:
        """Is it simply streaming, as far as is known?"""
        return {self.replica, self.raw} <= {"streaming", ""}


def rows_of(replicator: Account | None, loader: Account | None) -> list[Row]:
    """Both legs' tables by name."""
    first = {line.name: line for line in (replicator.tables if replicator else [])}
    second = {line.name: line for line in (loader.tables if loader else [])}
    rows = []
    for name in sorted({*first, *second}):
        one, two = first.get(name), second.get(name)
        lines = [line for line in (one, two) if line is not None]
        rows.append(
            Row(
                name,
                one.state if one else "",
                two.state if two else "",
                two.rows if two else sum(line.rows for line in lines),
                max(line.changed for line in lines),
                one.digest if one else "",
                two.digest if two else "",
            )
        )
    return rows


SORTS: Final[Mapping[str, Callable[[Row], tuple[object, ...]]]] = {
    "table": lambda row: (row.name,),
    "state": lambda row: (row.quiet, row.replica, row.raw, row.name),
    "rows": lambda row: (-row.rows, row.name),
    "changed": lambda row: (*(-ord(c) for c in row.changed), 1, row.name),
    "hash": lambda row: (row.raw_digest or row.digest, row.name),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the query asks for; what makes no sense is as if it were not there."""

    sort: str = "state"
    text: str = ""
    state: str = ""
    refresh: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wish:
        """Read it."""
        sort = query.get("sort", "")
        return cls(
            sort if sort in SORTS else "state",
            query.get("q", "")[:64],
            query.get("state", "")[:32],
            query.get("refresh") == "1",
        )

    def link(self, **changes: object) -> str:
        """The address of the page with other wishes."""
        wishes = {
            "sort": self.sort,
            "q": self.text,
            "state": self.state,
            "refresh": "1" if self.refresh else "",
            **changes,
        }
        return "/?" + urlencode({k: v for k, v in wishes.items() if v})

    def chosen(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are wished for, in their order."""
        text = self.text.lower()
        found = [
            row
            for row in rows
            if text in row.name.lower() and (not self.state or self.state in (row.replica, row.raw))
        ]
        return sorted(found, key=SORTS[self.sort])


def page(
    here: str, replicator: Account | None, loader: Account | None, wish: Wish, now: float
) -> str:
    """The whole page, served by the leg `here`."""
    accounts = [account for account in (replicator, loader) if account is not None]
    word = _verdict(replicator, loader)
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH}">' if wish.refresh else ""
    parts = [
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh}<title>{escape(word)} · OpenDental pipeline</title><style>{STYLE}</style></head>"
        "<body><header><h1>OpenDental pipeline</h1>"
        f'<p class="verdict {_class(word)}">{escape(word)}</p></header><main>',
        _flow(replicator, loader),
        _history(accounts),
        _copies(accounts),
        _halts(accounts, now),
        _tables(rows_of(replicator, loader), accounts, wish),
        f"</main><footer><p>{_moment(now)} UTC, from {escape(here)}."
        f' <a href="{escape(wish.link(refresh="" if wish.refresh else "1"))}">'
        f"{'Stop refreshing' if wish.refresh else f'Refresh every {_REFRESH} s'}</a> ·"
        ' <a href="/metrics">metrics</a> · <a href="/readyz">ready?</a></p></footer>'
        "</body></html>\n",
    ]
    return "".join(parts)


def _verdict(replicator: Account | None, loader: Account | None) -> str:
    if replicator is None or loader is None:
        missing = "replicator" if replicator is None else "loader"
        return f"{missing} does not answer"
    if any(copy.what == "first copy" for copy in replicator.copies):
        return "first copy"
    doing = replicator.doing or loader.doing
    if not all(account.link_up or account.doing for account in (replicator, loader)):
        return "a link is down"
    if doing:
        return "starting"
    return "caught up" if replicator.ready and loader.ready else "behind"


def _class(word: str) -> str:
    good_or_busy = {"caught up": "good", "first copy": "busy", "starting": "busy", "behind": "busy"}
    return good_or_busy.get(word, "bad")


# --- the flow ----------------------------------------------------------------------------


def _flow(replicator: Account | None, loader: Account | None) -> str:
    whole = loader.whole_lag if loader else None
    return (
        '<section aria-label="Flow"><ol class="flow">'
        "<li class=node><b>source</b> <span>OpenDental’s server</span></li>"
        f"{_arrow('replicator', replicator)}"
        "<li class=node><b>replica</b> <span>MySQL or MariaDB</span></li>"
        f"{_arrow('loader', loader)}"
        "<li class=node><b>raw</b> <span>PostgreSQL</span></li></ol>"
        f"<p>From source to raw: <b>{seconds(whole)}</b> behind.{_purge(replicator, loader)}"
        f"{_quarantine(loader)}{_verified(replicator or loader)}</p></section>"
    )


def _arrow(name: str, account: Account | None) -> str:
    if account is None:
        return (
            f'<li class="arrow bad"><span class=lag>→ unknown</span> <span>{name} does not answer'
            "</span></li>"
        )
    down = not account.link_up and not account.doing
    kind = "bad" if down else "good" if account.ready else "busy"
    facts = [f"{name}: {account.doing}" if account.doing else name]
    if down:
        facts[0] += (
            ", link down"
            if account.heard is None
            else (f", link down, heard {seconds(account.heard)} ago")
        )
    if account.bytes_behind is not None:
        behind = f"{amount(account.bytes_behind)} behind"
        if account.transactions_behind:
            behind += f", {account.transactions_behind:,.0f} transactions"
        facts.append(f"{behind} when it was last asked" if down else behind)
    if account.position:
        facts.append(f"at {account.position}")
    said = "<br>".join(map(escape, facts))
    return (
        f'<li class="arrow {kind}"><span class=lag>→ {seconds(account.lag)}</span>'
        f" <span>{said}</span></li>"
    )


def _purge(*accounts: Account | None) -> str:
    told = [a.purge_in for a in accounts if a is not None and a.purge_in is not None]
    soonest = min(told, default=float("inf"))
    if soonest == float("inf"):
        return ""
    warn = ' class="bad"' if soonest < 86400 else ""
    return (
        f" What is needed next is purged in <span{warn}>{seconds(soonest)}</span> at the soonest."
    )


def _quarantine(loader: Account | None) -> str:
    if loader is None or not loader.quarantined:
        return ""
    return (
        f' <span class="bad">{loader.quarantined:,} rows in quarantine</span>'
        " (<code>replicator quarantine list</code>)."
    )


def _verified(account: Account | None) -> str:
    return f" Last verify: {escape(account.verified)}." if account and account.verified else ""


def _history(accounts: list[Account]) -> str:
    series = [(_LINES[account.leg], account.history) for account in accounts]
    samples = max((len(values) for _, values in series), default=0)
    if not samples:
        return ""
    span = next(span for span in plot.SPANS if samples <= span or span == plot.SPANS[-1])
    time = f"last {span * plot.SAMPLE_SECONDS / 60:.0f} minutes"
    key = ", ".join(
        f'<span class="key{n}">{escape(name)}: {values[-1]:.1f} s now, {max(values):.1f} s at most'
        "</span>"
        for n, (name, values) in enumerate(series)
        if values
    )
    return (
        f'<section aria-label="Lag"><h2>Lag, {time}</h2>'
        f"{plot.drawing(series, span)}<p class=small>{key}</p></section>"
    )


# --- copies and halts --------------------------------------------------------------------


def _copies(accounts: list[Account]) -> str:
    lines = [_copy(copy) for account in accounts for copy in account.copies]
    if not lines:
        return ""
    return f'<section aria-label="Copies"><h2>Under way</h2><ul>{"".join(lines)}</ul></section>'


def _copy(copy: CopyLine) -> str:
    most = max(copy.expected, copy.rows, 1)
    left = f", {escape(copy.left)}" if copy.left else ""
    return (
        f"<li>{escape(copy.what)}: {copy.rows:,} of about {most:,} {escape(copy.unit)}{left}"
        f' <progress max="{most}" value="{copy.rows}">{copy.rows * 100 // most} %</progress></li>'
    )


def _halts(accounts: list[Account], now: float) -> str:
    halts = sorted({halt for a in accounts for halt in a.halts}, key=lambda halt: -halt.at)
    if not halts:
        return ""
    lines = "".join(_halt(halt, now) for halt in halts[:_HALTS_SHOWN])
    return f'<section aria-label="Halts"><h2>Halts</h2><dl>{lines}</dl></section>'


def _halt(halt: HaltLine, now: float) -> str:
    return (
        f"<dt>{_moment(halt.at)} UTC ({seconds(now - halt.at)} ago), {escape(halt.leg)}:"
        f" {escape(halt.error)}</dt><dd>{escape(halt.message)}<br><b>Remedy:</b>"
        f" {escape(halt.remedy)}</dd>"
    )


# --- tables ------------------------------------------------------------------------------


def _tables(rows: list[Row], accounts: list[Account], wish: Wish) -> str:
    chosen = wish.chosen(rows)
    streaming = sum(row.quiet for row in rows)
    untold = [a.leg for a in accounts if not a.tables_told]
    note = (
        f" What {escape(' and '.join(untold))} knows of them cannot be read now." if untold else ""
    )
    more = ""
    if len(chosen) > MOST_ROWS:
        more = f"<p>{len(chosen) - MOST_ROWS:,} more: filter by name.</p>"
    return (
        f'<section aria-label="Tables"><h2>Tables</h2><p>{len(rows):,} tables, {streaming:,}'
        f" streaming; {len(chosen):,} shown.{note}</p>{_form(rows, wish)}"
        f"<div class=scroll><table><thead><tr>{_heads(wish)}</tr></thead>"
        f"<tbody>{''.join(map(_row, chosen[:MOST_ROWS]))}</tbody></table></div>{more}</section>"
    )


def _form(rows: list[Row], wish: Wish) -> str:
    states = sorted({s for row in rows for s in (row.replica, row.raw) if s} | {wish.state} - {""})
    options = "".join(
        f"<option{' selected' if state == wish.state else ''}>{escape(state)}</option>"
        for state in states
    )
    kept = "".join(
        f'<input type=hidden name="{name}" value="{escape(value)}">'
        for name, value in (("sort", wish.sort), ("refresh", "1" if wish.refresh else ""))
        if value
    )
    return (
        f'<form action="/" method=get>{kept}<label>Name has <input name=q size=14 maxlength=64'
        f' value="{escape(wish.text)}"></label> <label>state <select name=state>'
        f'<option value="">any</option>{options}</select></label> <button>Filter</button></form>'
    )


def _heads(wish: Wish) -> str:
    heads = (
        ("table", "Table", ""),
        ("state", "State", ""),
        ("rows", "Rows written", "number"),
        ("changed", "Last change (UTC)", "wide"),
        ("hash", "Schema", "wide"),
    )
    cells = []
    for name, label, kind in heads:
        order = ' aria-sort="other"' if name == wish.sort else ""
        shown = f"{label} ▾" if name == wish.sort else label
        link = escape(wish.link(sort=name))
        cells.append(f'<th class="{kind}" scope=col{order}><a href="{link}">{shown}</a></th>')
    return "".join(cells)


def _row(row: Row) -> str:
    state = row.replica or "–"
    if row.raw != row.replica:
        state = f"{state} → {row.raw or '–'}"
    digests = [d[:8] for d in dict.fromkeys((row.raw_digest, row.digest)) if d]
    return (
        f"<tr><td class=name>{escape(row.name)}</td>"
        f'<td class="{"" if row.quiet else "busy"}">{escape(state)}</td>'
        f"<td class=number>{row.rows:,}</td>"
        f'<td class="wide">{escape(row.changed[:19].replace("T", " ")) or "–"}</td>'
        f'<td class="wide"><code>{escape(" → ".join(digests)) or "–"}</code></td></tr>'
    )


# --- words -------------------------------------------------------------------------------


def seconds(value: float | None) -> str:
    """A time span in words: `0.3 s`, `4 min`, `5.2 h`, `3.0 days`."""
    if value is None:
        return "unknown"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    if value < 172800:
        return f"{value / 3600:.1f} h"
    return f"{value / 86400:.1f} days"


def amount(count: float) -> str:
    """A number of bytes in words."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def _moment(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S")
