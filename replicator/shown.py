"""What leg 1 shows on its port: where it stands, and its tables as the replica has them.

Left: the `Standing` that the loop keeps, and the replica, asked only when somebody looks.
Right: an `Account`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from datetime import UTC, datetime
from functools import partial
from typing import Any

from config.connections import connect_mysql
from config.page.account import MOST_HALTS, MOST_TABLES, Account, CopyLine, HaltLine, TableLine
from config.page.asking import ANSWER_SECONDS, TablesAsked
from config.page.site import READY_SECONDS
from config.records import VerifyNote
from config.settings import Settings
from replicator.standing import Standing
from replicator.tracking import fetch


class ShownReplicator:
    """See the module; for the threads of the port."""

    def __init__(
        self, settings: Settings, standing: Standing, held: Callable[[], str] = lambda: ""
    ) -> None:
        """`held`: why the leg is paused; "" where it is not."""
        server = settings.replication.model_copy(update={"connect_timeout": ANSWER_SECONDS})
        connect = partial(
            connect_mysql,
            server,
            database=server.db,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
        )
        self._tables = TablesAsked(connect, _tables)
        self._standing = standing
        self._held = held

    def lag(self) -> float:
        """Seconds behind, now."""
        return self._standing.lag()

    def unready(self) -> str:
        """Why it cannot be ready, whatever the lag; "" where it can."""
        if held := self._held():
            return held
        if self._standing.stage is not None:
            return "the first copy is under way"
        return "" if self._standing.freshness.known else "starting"

    def account(self) -> Account:
        """What there is to tell."""
        standing = self._standing
        account = Account(
            "replicator",
            lag=self.lag(),
            doing=self.unready(),
            halts=[HaltLine(*astuple(halt)) for halt in standing.halts.all[:MOST_HALTS]],
            verified=verified_words(standing.verified),
            copies=self._copies(),
        )
        account.ready = not account.doing and self.lag() <= READY_SECONDS
        standing.link.describe(account)
        self._tables.tell(account)
        return account

    def _copies(self) -> list[CopyLine]:
        stage, resync = self._standing.stage, self._standing.resync
        copies = []
        if stage is not None:
            left = f"{stage.tables - stage.tables_done} of {stage.tables} tables left"
            copies.append(CopyLine("first copy", stage.rows, stage.rows_expected, left))
        if resync is not None:
            copies.append(CopyLine(f"reload of {resync.table}", resync.rows, resync.expected))
        return copies

    def close(self) -> None:
        """Hang up."""
        self._tables.close()


def _tables(connection: Any) -> list[TableLine]:
    rows = fetch(
        connection,
        "SELECT table_name, extraction_status, rows_extracted, last_extracted, schema_hash"
        f" FROM etl_extract_status LIMIT {MOST_TABLES}",
    )
    return [
        TableLine(name, state, int(count), _iso(when), (digest or "")[:8])
        for name, state, count, when, digest in rows
    ]


def verified_words(note: VerifyNote | None) -> str:
    """How `replicator verify` ended last, in words."""
    if note is None:
        return ""
    when = datetime.fromtimestamp(note.at, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{when} UTC, " + ", ".join(
        f"{count} {verdict}" for verdict, count in note.verdicts.items()
    )


def _iso(when: datetime | None) -> str:
    return "" if when is None else when.isoformat(timespec="seconds")
