"""What leg 2 shows on its port: where it stands, and its tables as `raw` has them.

Left: the `Standing` that the session keeps, and PostgreSQL, asked only when somebody looks.
Right: an `Account`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from datetime import UTC, datetime
from functools import partial
from typing import Final

from config.connections import PostgresConnection, connect_postgres
from config.metrics import QUARANTINED_ROWS
from config.page.account import MOST_HALTS, MOST_TABLES, Account, CopyLine, HaltLine, TableLine
from config.page.asking import ANSWER_SECONDS, TablesAsked
from config.page.site import READY_SECONDS
from config.settings import PostgresServer, Settings
from loader.standing import Standing
from loader.tracking import DROPPED, LOADING, RELOADING

_NAMED: Final = 5


class ShownLoader:
    """See the module; for the threads of the port."""

    def __init__(
        self, settings: Settings, standing: Standing, held: Callable[[], str] = lambda: ""
    ) -> None:
        """`held`: why the leg is paused; "" where it is not."""
        server = settings.analytics.model_copy(update={"connect_timeout": ANSWER_SECONDS})
        self._tables = TablesAsked(partial(_connected, server), _tables)
        self._standing = standing
        self._held = held

    def lag(self) -> float:
        """Seconds that `raw` is behind the source, now."""
        return self._standing.lag()

    def unready(self) -> str:
        """Why it cannot be ready, whatever the lag; "" where it can."""
        if held := self._held():
            return held
        if self._standing.states()[LOADING]:
            return "tables are being loaded"
        return "" if self._standing.whole.known else "starting"

    def account(self) -> Account:
        """What there is to tell."""
        standing = self._standing
        account = Account(
            "loader",
            lag=standing.loader_lag(),
            whole_lag=standing.lag(),
            doing=self.unready(),
            halts=[HaltLine(*astuple(halt)) for halt in standing.halts.all[:MOST_HALTS]],
            quarantined=_quarantined(),
            copies=self._copies(),
        )
        account.ready = not account.doing and self.lag() <= READY_SECONDS
        standing.link.describe(account)
        self._tables.tell(account)
        return account

    def _copies(self) -> list[CopyLine]:
        """Tables being loaded or reloaded; how many rows they have is not known before the end."""
        known = list(self._standing.tables.by_name.values()) if self._standing.tables else []
        names = sorted(table.name for table in known if table.state in (LOADING, RELOADING))
        if not names:
            return []
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        done = len(known) - len(names)
        what = f"loading {', '.join(names[:_NAMED])}{more}"
        return [CopyLine(what, done, len(known), unit="tables")]

    def close(self) -> None:
        """Hang up."""
        self._tables.close()


def _connected(server: PostgresServer) -> PostgresConnection:
    connection = connect_postgres(server, autocommit=True, application_name="loader page")
    connection.execute(f"SET statement_timeout = '{int(ANSWER_SECONDS * 1000)}ms'")
    return connection


def _tables(connection: PostgresConnection) -> list[TableLine]:
    rows = connection.execute(
        "SELECT table_name, transformation_status, rows_transformed, last_transformed, schema_hash"
        " FROM etl_transform_status WHERE transformation_status <> %s LIMIT %s",
        [DROPPED, MOST_TABLES],
    ).fetchall()
    return [
        TableLine(name, state, int(count), _iso(when), (digest or "")[:8])
        for name, state, count, when, digest in rows
    ]


def _quarantined() -> int:
    return int(
        sum(sample.value for family in QUARANTINED_ROWS.collect() for sample in family.samples)
    )


def _iso(when: datetime | None) -> str:
    if when is None:
        return ""
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
