"""What leg 1 shows on its port: where it stands, and its tables as the replica has them.

Left: the `Standing` that the loop keeps, and a connection of its own to the replica, asked only
when somebody looks, and never waited for long. Right: an `Account`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any, Final

import pymysql

from config.connections import connect_mysql
from config.errors import ReplicatorError
from config.page.account import MOST_HALTS, MOST_TABLES, Account, CopyLine, HaltLine, TableLine
from config.page.site import READY_SECONDS
from config.records import VerifyNote
from config.settings import Settings
from replicator.standing import Standing
from replicator.tracking import fetch

ANSWER_SECONDS: Final = 2.0


class ShownReplicator:
    """See the module; for the threads of the port."""

    def __init__(
        self, settings: Settings, standing: Standing, held: Callable[[], str] = lambda: ""
    ) -> None:
        """`held`: why the leg is paused; "" where it is not."""
        server = settings.replication
        self._server = server.model_copy(update={"connect_timeout": ANSWER_SECONDS})
        self._standing = standing
        self._held = held
        self._lock = threading.Lock()
        self._connection: Any = None

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
            link_up=standing.streaming,
            heard=standing.heard_age(),
            bytes_behind=standing.bytes_behind(),
            transactions_behind=standing.transactions_behind(),
            purge_in=standing.purge_in(),
            doing=self.unready(),
            halts=[HaltLine(*astuple(halt)) for halt in standing.halts[:MOST_HALTS]],
            verified=verified_words(standing.verified),
            copies=self._copies(),
        )
        account.position = str(standing.offset.position) if standing.offset else ""
        account.ready = not account.doing and self.lag() <= READY_SECONDS
        with suppress(ReplicatorError, pymysql.MySQLError, OSError):
            account.tables = self._tables()
            account.tables_told = True
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

    def _tables(self) -> list[TableLine]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = connect_mysql(
                        self._server,
                        database=self._server.db,
                        read_timeout=ANSWER_SECONDS,
                        write_timeout=ANSWER_SECONDS,
                    )
                rows = fetch(
                    self._connection,
                    "SELECT table_name, extraction_status, rows_extracted, last_extracted,"
                    f" schema_hash FROM etl_extract_status LIMIT {MOST_TABLES}",
                )
            except BaseException:
                self.close()
                raise
        return [
            TableLine(name, state, int(rows), _iso(when), (digest or "")[:8])
            for name, state, rows, when, digest in rows
        ]

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


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
