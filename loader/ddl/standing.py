"""Names whose raw tables stand while RENAME and CREATE go on behind them.

OpenDental alters a large table by RENAME t → tempConv_t1, CREATE TABLE t LIKE it, ALTER,
re-INSERT of every row from several connections, DROP tempConv_t1. Readers of `raw.t` see
the old rows until the new ones are whole, and never another OID:

* RENAME t → x: `raw.t` *stands*. x is *waiting*: its rows are those in `raw.t`, its own
  changes go to its touched table. Nothing is copied.
* CREATE TABLE t: t *grows* in its touched table, which has all its rows, as it was born
  empty in the stream. ALTERs before the first row cost nothing.
* DROP x: t is whole. In the same transaction as that position its rows take the place
  of the old ones, only the differences being written.

A name that nobody takes again lets its table go after `rename_seconds` (x is then the
renamed table, views and all). A table that grows while x stays is whole when it is quiet
and has as many rows as before, when for some time none of the rows that came last into it
were rows of the old one (it is in use: its log was put away, say), or when it has been
quiet for `replacement_seconds`. Whatever
does not fit (no key, value exceptions, an ALTER over grown rows) is reloaded at the same
moment instead. docs/decisions/0012 has the argument.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

import psycopg
import structlog

from config.connections import PostgresConnection
from loader import schema, tracking
from loader.ddl import exchange, shapes
from loader.ddl.drift import ShapeDrift
from loader.ddl.maskwatch import MaskWatch
from loader.ddl.moves import Moves, moves
from loader.ddl.rekeeping import follow_moved
from loader.ddl.renaming import STANDING, Renaming, Stand
from loader.ledger import Ledger
from loader.lifecycle import Table
from loader.load.reload import shape_of
from loader.masking import masks_of
from loader.naming import TOUCHED, helper_name
from loader.quarantine import entries
from loader.quarantine.refusals import attempt, refusal
from loader.tracking import LOADING, RELOADING, STREAMING, WAITING
from loader.types import raw_name

log = structlog.get_logger()

QUIET_SECONDS = 3.0
IN_USE_LOOKS = 3
"""A growing table that so often got no row of the old one's lately is in use, not being filled."""


class Standing:
    """See the module. `reload` asks for copies; `drop` lets raw tables go."""

    def __init__(
        self,
        ledger: Ledger,
        seconds: tuple[float, float],
        reload: Callable[[set[str]], None],
        drop: Callable[[list[str]], None],
        masks: MaskWatch,
    ) -> None:
        self._masks = masks
        self._ledger = ledger
        self._tables = ledger.tables
        self._rename_seconds, self._replacement_seconds = seconds
        self._reload = reload
        self._drop = drop
        self._stands: dict[str, Stand] = {}
        self._whole: list[str] = []
        """Names whose owner is gone: to be shown once its drop is written."""

    def __bool__(self) -> bool:
        return bool(self._stands)

    @property
    def _now(self) -> str | None:
        """The source's commit time at the stream's place."""
        return self._ledger.offset.source_ts

    # --- RENAME --------------------------------------------------------------------------

    def renamed(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Follow a RENAME, the batch before it being written; the names that are followed on.

        A table that leg 1 does not stream yet is nobody's under its old name, and waits for
        leg 1's word under its new one.
        """
        followed = (STREAMING, LOADING, RELOADING)
        names = [n for n, t in self._tables.by_name.items() if t.state in followed]
        for name in {old for old, _ in pairs} - {new for _, new in pairs}:
            if name in self._tables.by_name and self._tables.get(name).state == WAITING:
                self._tables.drop(name)
        found = moves(pairs, names)
        contents = [content for content in found.moved.values() if content]
        easy = len(contents) == len(found.moved) and all(map(self._is_easy, contents))
        if easy and self._masks.allow(found.moved):
            self._rename(found, contents)
        else:
            self._rename_by_reload(found, names)
        return [name for name, content in found.moved.items() if content]

    def _rename(self, found: Moves, contents: list[str]) -> None:
        try:
            Renaming(self._ledger, self._stands, found).run()
        except psycopg.Error as error:
            if refusal(error) is None:
                raise
            # Rows that one name's table took and the other's refuses: only a load sorts them out,
            # and a table that is being loaded is renamed by loading.
            raise ShapeDrift(contents[0]) from None
        self._ledger.write()

    def _is_easy(self, content: str) -> bool:
        """Are its rows in `raw`, and can they be told apart?"""
        table = self._tables.get(content)
        here = table.state == STREAMING or self._waits(content) is not None
        if not here or self._ledger.is_behind_watermark(table):
            return False  # a keyless copy may have been read behind the RENAME
        place = raw_name(self._waits(content) or content)
        found = schema.read_tables(self._ledger.postgres, [place]).get(place)
        faulty = self._is_faulty(content)
        return found is not None and bool(found.key) and not faulty

    def _is_faulty(self, name: str) -> bool:
        """Are there values or rows of it that `raw` does not hold?"""
        connection = self._ledger.postgres
        faulty = name in tracking.tables_with_exceptions(connection)
        return faulty or entries.any_of(connection, name)

    def _waits(self, name: str) -> str | None:
        """The name whose raw table has this one's rows."""
        return next((n for n, s in self._stands.items() if s.waiting and s.owner == name), None)

    def _rename_by_reload(self, found: Moves, names: Collection[str]) -> None:
        now = time.monotonic()
        for name in found.gone:
            table = self._tables.drop(name)
            holder = self._waits(name)
            if holder is not None:
                self._stands[holder].waiting = False
            if name not in self._stands:
                owner = found.name_of(name)
                self._stands[name] = Stand(owner, now, fresh=not self._has_raw_table(owner))
            self._stands[name].growing = self._stands[name].born = False
            self._tables.enter(table, STANDING)
        for name, stand in self._stands.items():
            if stand.owner in found.gone:
                stand.owner, stand.fresh = found.name_of(stand.owner), False
            if name in found.gone or stand.owner in found.moved:
                shapes.note_standing(self._ledger.postgres, name, stand.owner, fresh=stand.fresh)
        # What has come from where we follow nothing is not what was followed under its name.
        wrong = {name for name, content in found.moved.items() if content or name in names}
        for name in wrong:  # should we die before they are asked for, a start asks for them
            self._tables.enter(self._tables.drop(name), RELOADING)
        shapes.rename(self._ledger.postgres, found.moved)
        self._ledger.write()
        self._reload(wrong)

    # --- the life of a standing name -----------------------------------------------------

    def created(self, name: str, *, born_empty: bool) -> bool:
        """CREATE TABLE; True where the name stands and grows from here."""
        stand = self._stands.get(name)
        if stand is None or not born_empty or not self._is_shown(name):
            return False
        stand.growing, stand.born, stand.fresh = True, True, False
        shapes.note_standing(self._ledger.postgres, name, stand.owner)
        stand.since = time.monotonic()
        self._grow_anew(name)
        self._ledger.write()
        return True

    def _is_shown(self, name: str) -> bool:
        """Has it a raw table? One that went away while its first load was on its way has none."""
        shown = self._has_raw_table(name)
        if not shown:
            self._ledger.postgres.rollback()
        return shown

    def _has_raw_table(self, name: str | None) -> bool:
        place = raw_name(name or "")
        return place in schema.read_tables(self._ledger.postgres, [place])

    def _grow_anew(self, name: str) -> None:
        table = self._tables.drop(name)
        self._tables.enter(table, RELOADING)
        table.hidden = True
        schema.drop_helpers(self._ledger.postgres, [helper_name(TOUCHED, name)])

    def altered(self, name: str, *, rows_changed: bool) -> bool:
        """ALTER; True where the table grows, so that nothing has to be done now.

        `rows_changed`: it may have got rows of another table (EXCHANGE PARTITION).
        """
        stand = self._stands.get(name)
        if stand is None or not stand.growing:
            return False
        stand.born = stand.born and not rows_changed and not self._tables.get(name).touched
        self._tables.get(name).writer = None
        return True

    def truncated(self, name: str) -> bool:
        """TRUNCATE; True where the table grows, and begins anew."""
        stand = self._stands.get(name)
        if stand is None or not stand.growing:
            return False
        stand.born = True
        self._grow_anew(name)
        self._ledger.write()
        return True

    def dropped(self, names: Iterable[str]) -> list[str]:
        """DROP TABLE; the names whose raw tables are to go now.

        A name that has no table (IF EXISTS) stands on: its raw table has another one's rows.
        """
        gone = []
        for name in names:
            stand = self._stands.get(name)
            if stand is not None and stand.growing:
                self._stop_growing(name, stand)
            elif self._tables.get(name).state != STANDING:
                if stand is not None:  # it has a table that leg 1 copies
                    self.release([name])
                gone.append(name)
                gone += self._owner_dropped(name)
        return gone

    def _stop_growing(self, name: str, stand: Stand) -> None:
        stand.growing = stand.born = False
        stand.since = time.monotonic()
        self._tables.enter(self._tables.drop(name), STANDING)
        schema.drop_helpers(self._ledger.postgres, [helper_name(TOUCHED, name)])

    def _owner_dropped(self, owner: str) -> list[str]:
        """What stood for the dropped table: whole now, or gone with it."""
        gone = []
        for name, stand in list(self._stands.items()):
            if stand.owner != owner:
                continue
            stand.owner, stand.waiting = None, False
            if stand.growing:
                self._whole.append(name)
            elif self._tables.get(name).state == STANDING:
                del self._stands[name]
                shapes.forget_standing(self._ledger.postgres, name)
                gone.append(name)
        return gone

    def complete(self) -> None:
        """Show the tables that became whole with what has just been dropped."""
        whole, self._whole = self._whole, []
        for name in whole:
            self._complete(name)

    def release(self, names: Iterable[str]) -> None:
        """These names are loaded from the replica: give waiting tables their rows first."""
        changed = False
        names = list(names)
        for name in names:
            holder = self._waits(name)
            if holder is not None:
                self._stands[holder].waiting = False
                self._tables.drop(name)
                changed = True
        for name in names:
            stand = self._stands.get(name)
            if stand is None:
                continue
            self._give_rows(name, stand)
            del self._stands[name]
            shapes.forget_standing(self._ledger.postgres, name)
            self._tables.enter(self._tables.drop(name), WAITING)
            self._tables.get(name).hidden = changed = True
        if changed:
            self._ledger.write()

    def _give_rows(self, name: str, stand: Stand) -> None:
        """The owner gets a raw table of its own, with the rows that stand here."""
        if not stand.waiting or stand.owner is None:
            return
        connection = self._ledger.postgres
        exchange.copy_table(connection, raw_name(name), raw_name(stand.owner))
        _arrive(connection, self._tables.get(stand.owner), self._now)
        self._tables.merged([self._tables.get(stand.owner)])
        stand.waiting = False

    def _complete(self, name: str) -> None:
        """A table that grew is whole: show it, with the position that says so."""
        stand, table = self._stands[name], self._tables.get(name)
        connection = self._ledger.postgres
        plan = table.writer[0] if table.writer else None
        faulty = self._is_faulty(name)
        if not stand.born or plan is None or not plan.key or faulty:
            self._reload({name})
            return
        self._give_rows(name, stand)
        shape = shape_of(plan.schema)
        if attempt(connection, lambda: exchange.reveal(connection, plan.schema, shape, self._now)):
            self._reload({name})  # some rows are refused
            return
        del self._stands[name]
        shapes.forget_standing(connection, name)
        self._tables.merged([table])
        self._ledger.write()
        log.info("replacement_complete", table=name)

    # --- time ----------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Let go what has stood long enough; called now and then."""
        for name, stand in list(self._stands.items()):
            if stand.growing and self._is_whole(name, stand, now):
                self._ledger.write()
                self._complete(name)
            elif not stand.growing and now - stand.since > self._rename_seconds:
                self._let_go(name, stand)

    def _is_owner_coming(self, stand: Stand) -> bool:
        """Is a first copy of the owner on its way, whom the readers are to follow?"""
        return stand.fresh and stand.owner is not None and self._tables.is_copied(stand.owner)

    def _is_whole(self, name: str, stand: Stand, now: float) -> bool:
        """Nobody drops the old table: is the growing one being filled from it, or in use?"""
        table = self._tables.get(name)
        quiet = now - max(stand.since, table.seen_at)
        if quiet > self._replacement_seconds:
            return True
        if now < max(stand.look_at, stand.since + QUIET_SECONDS) or not table.touched:
            return False
        self._ledger.drain()
        connection = self._ledger.postgres
        began = time.monotonic()
        stand.uncopied = 0 if exchange.is_being_copied(connection, name) else stand.uncopied + 1
        whole = stand.uncopied >= IN_USE_LOOKS or (
            quiet >= QUIET_SECONDS and exchange.has_as_many_rows(connection, name)
        )
        connection.rollback()
        # What takes long is not done often: the stream waits meanwhile.
        stand.look_at = now + max(QUIET_SECONDS, 20 * (time.monotonic() - began))
        return whole

    def _let_go(self, name: str, stand: Stand) -> None:
        """Nobody took the name again."""
        if self._tables.get(name).state != STANDING:
            return  # leg 1 is copying a table of that name
        if self._is_owner_coming(stand):
            return
        self._ledger.write()
        del self._stands[name]
        connection = self._ledger.postgres
        shapes.forget_standing(connection, name)
        refused = None
        if stand.waiting and stand.owner is not None:
            owner = self._tables.get(stand.owner)
            exchange.rename_for_good(connection, raw_name(name), raw_name(stand.owner))
            refused = attempt(connection, lambda: _arrive(connection, owner, self._now))
            self._tables.merged([owner])
        elif stand.fresh and stand.owner is not None:
            self._hand_over(name, stand.owner)
        self._drop([name])
        if refused is not None:
            self._reload({owner.name})

    def _hand_over(self, name: str, owner: str) -> None:
        """A table that changed as it was renamed was loaded under its new name.

        The readers of the old one's raw table come along, unless that cannot hold the same rows,
        or the new one has readers of its own.
        """
        connection, table = self._ledger.postgres, self._tables.get(owner)
        old, new = raw_name(name), raw_name(owner)
        there, known = schema.read_tables(connection, [old, new]), shapes.read(connection, owner)
        if table.state != STREAMING or known is None or masks_of(known) or len(there) < 2:
            return
        if there[old].key != there[new].key or schema.dependants(connection, new):
            return
        if attempt(connection, lambda: exchange.take_over(connection, old, new, self._now)) is None:
            table.writer = None

    def restore(self, standing: Iterable[tuple[str, str | None, bool]]) -> None:
        """Take up what stood when the loader ended; what waited for rows is loaded."""
        for name, owner, fresh in standing:
            table = self._tables.get(name)
            growing = table.loading
            self._stands[name] = Stand(owner, time.monotonic(), fresh=fresh, growing=growing)
            if growing:
                self._tables.enter(self._tables.drop(name), RELOADING)
                table.hidden = True


def _arrive(connection: PostgresConnection, table: Table, at: str | None) -> None:
    """A table's rows have come to its own raw table: bring them up to date."""
    if table.touched:
        exchange.replay(connection, raw_name(table.name), table.name)
        schema.drop_helpers(connection, [helper_name(TOUCHED, table.name)])
    follow_moved(connection, table.name, at)
