"""Leg 2 as a thing that is stepped.

`Loader.step` returns within about a second when nothing happens. A `Session` is
all that one set of connections knows: when anything fails it is thrown away, and
the next step begins at the position that PostgreSQL holds.
"""

from __future__ import annotations

import structlog

from config.errors import (
    BinlogRefused,
    ColumnsMissing,
    EventsLost,
    PositionLost,
    SchemaDrift,
    SourceReset,
    classify,
)
from config.settings import Settings
from config.tables import TableRules, load_table_rules
from loader.completing import Incompletable
from loader.ddl.drift import Drifts
from loader.session import Session
from loader.standing import Standing

log = structlog.get_logger()


class Loader:
    """Leg 2 as a thing that is stepped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = load_table_rules(settings.tables_file)
        self._session: Session | None = None
        self._drifts = Drifts()
        self._completed: frozenset[str] = frozenset()
        """Tables whose rows events leave out generated columns, as far as they were met."""
        self.standing = Standing(settings)

    def step(self) -> None:
        """Take in what the replica has, write what is due; raises Transient or Halt."""
        try:
            if self._session is None:
                self._begin()
            assert self._session is not None
            self._session.step()
        except (PositionLost, SourceReset, BinlogRefused, EventsLost) as lost:
            # The replica's own binlog: everything in it is also in the replica's tables.
            log.warning("replica_position_lost", reason=str(lost), remedy="reloading every table")
            self._begin(anew=True)
        except ColumnsMissing as missing:
            if missing.table in self._completed:
                self.close()
                raise
            self._completed |= {missing.table}
            log.info("generated_columns_left_out", table=missing.table, remedy="working them out")
            self._begin()
        except Incompletable as changed:
            log.info("table_changed_since", table=changed.table, remedy="reloading it")
            self._begin(reload=frozenset([changed.table]))
        except SchemaDrift as drift:
            self.close()
            self._begin(reload=self._drifts.heal(drift))
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise classify(error, server="analytics or replica") from error
            raise

    def _begin(self, *, anew: bool = False, reload: frozenset[str] = frozenset()) -> None:
        """A new session, at the stored position; see `Session.start`."""
        self.close()
        self.standing.begin()
        self._session = Session.start(
            self._settings,
            self._rules,
            self.standing,
            anew=anew,
            reload=reload,
            completed=self._completed,
        )

    def follow(self, rules: TableRules) -> None:
        """Carry other tables from the next step on."""
        self._rules = rules
        self.close()

    def describe(self) -> str:
        """Where it stands, in a few words."""
        return self._session.describe() if self._session is not None else "connecting"

    def close(self) -> None:
        """Close the session, if there is one."""
        self.standing.closed()
        session, self._session = self._session, None
        if session is not None:
            session.close()
