"""Mend some rows of a table, by key, between two transactions of the main stream.

Left: requests that name rows (`mend_requests`). Right: those rows as the source has them at the
stream's position, on the replica and, by its binlog, in `raw`; in one transaction of the replica.

A row that was read on the source is of a moment that the stream has not reached, and put into the
table it would show half of a transaction. So rows are read into a copy beside it, hidden from leg
2. Let the stream stand at *low* when they are read, all that stands before it being visible, and
let nothing that was read be of later than *high*. From low on the table's changes are applied to
it as ever, and reconciled with the copy too (`reconcile`: what the copy holds of a key is never
behind the events applied before; whole rows replace, removed ones go). When the stream has come
to high, the copy is exact there for the keys that were read, as each key's last change was
either read, or came by. Then the table's rows with these keys are removed, and the copy's put in
their place. Where only `raw` is wrong the copy is taken from the table itself, at once.

The replica logs that as a removal and an insertion, of rows that are the same too; so the loader
writes them again, at this very place of the stream, and leg 2 needs no path of its own. A
row that `raw` alone has leaves no trace when it is removed from a table that lacks it: for the
moment of this transaction a row with its key and nothing else is put there first.

Nothing is stored but the request, which ends in the transaction that mends its rows. Whatever
comes between (a death; a schema change or a reload of the table) lets it begin again. What cannot
be done by key ends in a reload: of the table by leg 1, or, where only `raw` is wrong, by leg 2,
which writes the rows that differ. That is so for tables without a key that can be asked for, with
rows' old versions, with rows that another unique key keeps from being put there, and where changes
in the window come with parts of rows only (`binlog_row_image`).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import pymysql
import structlog

from config.connections import connect_source
from config.connections import quote_mysql_identifier as quote
from config.errors import CopyRefused, SchemaDrift, Transient, classify
from config.failpoints import reach
from replicator import mend_requests as requests
from replicator import resync_requests
from replicator import source as src
from replicator.binlog.catalog import read_catalog
from replicator.binlog.position import SourcePosition
from replicator.chunks import KEY_TYPES
from replicator.exact import ExactMySQLReplicator
from replicator.mend_requests import RAW, Literals, MendRequest
from replicator.reconcile import Reconciler
from replicator.routes import Routes
from replicator.scratch import KEYS_PREFIX, hidden_name
from replicator.session import Session
from replicator.snapshot import TableCopier
from replicator.targets import TableChanged, TableGone
from replicator.tracking import execute, fetch

log = structlog.get_logger(__name__)

_MOST_ATTEMPTS: Final = 20
_KEYS_AT_ONCE: Final = 500


class _ByKeyNot(Exception):
    """These rows cannot be mended by key: the message says why."""


@dataclass(slots=True)
class _Shape:
    """The table's columns as the statements need them, quoted."""

    key: list[str]
    stored: str

    def having(self, keys: tuple[Literals, ...]) -> str:
        """The condition that a row has one of these keys."""
        if len(self.key) == 1:
            return f"{self.key[0]} IN ({', '.join(key[0] for key in keys)})"
        terms = (
            " AND ".join(f"{name} = {value}" for name, value in zip(self.key, key, strict=True))
            for key in keys
        )
        return " OR ".join(f"({term})" for term in terms)


@dataclass(slots=True)
class _Work:
    """A request whose rows stand in a copy, and the position from which on that is exact."""

    request: MendRequest
    copy: str
    shape: _Shape
    high: SourcePosition


class Mending:
    """The requests of one session; on the main thread, between two batches."""

    def __init__(
        self,
        session: Session,
        replicator: ExactMySQLReplicator,
        routes: Routes,
        reconciler: Reconciler,
    ) -> None:
        self._session = session
        self._replicator = replicator
        self._routes = routes
        self._reconciler = reconciler
        self._work: _Work | None = None
        self._attempts: dict[int, int] = {}
        self._opened: TableCopier | None = None
        self._next_poll = 0.0

    @property
    def copies(self) -> set[str]:
        """The copies that the stream brings along."""
        return {self._work.copy} if self._work is not None else set()

    def mind(self) -> None:
        """Move the request on that is worked on, or take up the next."""
        work = self._work
        if work is not None and not self._routes.mends(work.request.table):
            self._interrupt()  # a reload has taken the table's place
        elif work is not None:
            if self._replicator.position >= work.high:
                self._end(work)
        elif time.monotonic() >= self._next_poll:
            self._take_next()

    def follow(self, changed: Collection[str]) -> None:
        """Begin again if a schema change of these tables is one of the table that is mended."""
        if self._work is not None and self._work.request.table in changed:
            self._interrupt()

    def _interrupt(self) -> None:
        """Forget the work: it begins again. Something may have changed the table."""
        work, self._work = self._work, None
        if work is not None:
            if self._routes.mends(work.request.table):
                self._routes.stream(work.request.table)
            self._discard(work.copy)

    def give_up(self, dirty: set[str]) -> None:
        """Have the table reloaded whose copy is among the `dirty`, and take it out of them."""
        work = self._work
        if work is not None and work.copy in dirty:
            self._whole(work.request, "a change in the window does not tell the whole row")
        dirty -= {name for name in dirty if name.startswith(KEYS_PREFIX)}

    # --- one request ---------------------------------------------------------------------

    def _take_next(self) -> None:
        self._next_poll = time.monotonic() + self._session.settings.replicator.poll_seconds
        for request in requests.waiting(self._session.replica):
            if not self._routes.known(request.table):
                self._fail(request)
            elif self._routes.streams(request.table):
                self._begin(request)
                self._next_poll = 0.0  # another may wait behind it
                return

    def _fail(self, request: MendRequest) -> None:
        message = f"table {request.table} is not carried"
        requests.end_mend(self._session.replica, request.id, requests.FAILED, message=message)

    def _begin(self, request: MendRequest) -> None:
        reach("mend.taken")
        try:
            if not request.keys:
                raise _ByKeyNot("its rows cannot be asked for by key")
            shape = self._shape(request)
            copy = self._copy_of(request.table)
            self._work = work = _Work(request, copy, shape, self._replicator.position)
            if request.side == RAW:
                self._fill_from_replica(work)
                self._end(work)
            else:
                work.high = self._read(work)
                self._routes.mend(request.table, copy)
        except _ByKeyNot as reason:
            self._whole(request, str(reason))
        except (TableGone, TableChanged):  # the stream is about to tell of it
            self._interrupt()
            self._try_again(request, "its definition changes all the time")

    def _try_again(self, request: MendRequest, reason: str) -> None:
        tried = self._attempts[request.id] = self._attempts.get(request.id, 0) + 1
        if tried >= _MOST_ATTEMPTS:
            self._whole(request, reason)

    def _shape(self, request: MendRequest) -> _Shape:
        replica, database = self._session.replica, self._session.settings.replication.db
        catalog = read_catalog(replica, database, [request.table]).get(request.table)
        if catalog is None:
            raise _ByKeyNot("the replica lacks it")
        if catalog.system_versioned:
            raise _ByKeyNot("it keeps its rows' old versions")
        key = [quote(catalog.columns[at].name) for at in catalog.primary_key]
        if not key or any(len(one) != len(key) for one in request.keys):
            raise _ByKeyNot("it has no key, or another one than was asked for")
        if any(catalog.columns[at].data_type not in KEY_TYPES for at in catalog.primary_key):
            raise _ByKeyNot("its rows cannot be asked for by key")
        stored = [
            quote(name)
            for (name,) in fetch(
                replica,
                "SELECT column_name FROM information_schema.columns WHERE table_schema=%s"
                " AND table_name=%s AND COALESCE(generation_expression, '')=''"
                " ORDER BY ordinal_position",
                [database, request.table],
            )
        ]
        return _Shape(key, ", ".join(stored))

    def _copy_of(self, table: str) -> str:
        copy = hidden_name(KEYS_PREFIX, table)
        self._discard(copy)
        execute(self._session.hidden, f"CREATE TABLE {quote(copy)} LIKE {quote(table)}")
        return copy

    def _discard(self, copy: str) -> None:
        self._reconciler.finish(copy)
        self._replicator.dirty.discard(copy)
        execute(self._session.hidden, f"DROP TABLE IF EXISTS {quote(copy)}")

    # --- its rows ------------------------------------------------------------------------

    def _fill_from_replica(self, work: _Work) -> None:
        table, copy, shape = work.request.table, work.copy, work.shape
        execute(
            self._session.hidden,
            f"INSERT INTO {quote(copy)} ({shape.stored})"
            f" SELECT {shape.stored} FROM {quote(table)} WHERE {shape.having(work.request.keys)}",
        )

    def _read(self, work: _Work) -> SourcePosition:
        """Read the rows on the source; the position behind which none of them was read."""
        session, request = self._session, work.request
        table = src.base_table(session.catalog, session.settings.source.db, request.table)
        if table is None:
            raise TableGone(request.table)
        keys = [", ".join(key) for key in request.keys]
        try:
            high = self._copier.read_rows(table, work.copy, keys, self._replicator.position)
        except pymysql.IntegrityError:  # two of them were never there together
            execute(session.hidden, "ROLLBACK")
            raise TableChanged(request.table) from None
        except (CopyRefused, SchemaDrift) as error:
            raise _ByKeyNot(str(error)) from None
        reach("mend.read")
        return high

    @property
    def _copier(self) -> TableCopier:
        if self._opened is None:
            session = self._session
            reader: Any = session.kept(session.raw_source())
            catalog = session.kept(connect_source(session.settings))
            self._opened = session.kept(
                session.copier(catalog, reader, session.hidden, self._reconciler)
            )
        return self._opened

    def _end(self, work: _Work) -> None:
        """Put the copy's rows in the place of the table's, in one transaction."""
        if not self._replicator.idle:
            return
        request, replica = work.request, self._session.replica
        execute(replica, "BEGIN")
        try:
            self._put(work)
        except pymysql.MySQLError as error:
            known = classify(error, server="replica")
            if isinstance(known, Transient):
                raise known from None
            execute(replica, "ROLLBACK")
            self._whole(request, f"the replica refused its rows by key ({known})")
            return
        requests.end_mend(replica, request.id, requests.DONE, rows=len(request.keys))
        reach("mend.before_commit")
        execute(replica, "COMMIT")
        self._interrupt()
        log.info("rows_mended", table=request.table, rows=len(request.keys), side=request.side)

    def _put(self, work: _Work) -> None:
        table, copy = quote(work.request.table), quote(work.copy)
        replica, keys, shape = self._session.replica, work.request.keys, work.shape
        there = 0
        for at in range(0, len(keys), _KEYS_AT_ONCE):
            having = shape.having(keys[at : at + _KEYS_AT_ONCE])
            execute(replica, f"DELETE FROM {table} WHERE {having}")
            there += execute(
                replica,
                f"INSERT INTO {table} ({shape.stored})"
                f" SELECT {shape.stored} FROM {copy} WHERE {having}",
            )
        if there < len(keys) and work.request.side == RAW:
            self._tell_of_absent(table, copy, shape, keys)

    def _tell_of_absent(
        self, table: str, copy: str, shape: _Shape, keys: tuple[Literals, ...]
    ) -> None:
        """Let the binlog say that the rows that are not there are gone: see the module."""
        replica, columns = self._session.replica, ", ".join(shape.key)
        for key in keys:
            having = shape.having((key,))
            if not fetch(replica, f"SELECT 1 FROM {copy} WHERE {having}"):
                execute(replica, f"INSERT INTO {table} ({columns}) VALUES ({', '.join(key)})")
                execute(replica, f"DELETE FROM {table} WHERE {having}")

    # --- the whole table instead ---------------------------------------------------------

    def _whole(self, request: MendRequest, reason: str) -> None:
        """Have the table reloaded: by both legs, or by the loader where only `raw` is wrong."""
        self._interrupt()
        replica = self._session.replica
        execute(replica, "BEGIN")
        ask = resync_requests.ask_leg_2 if request.side == RAW else resync_requests.queue_resync
        (number,) = ask(replica, [request.table])
        requests.end_mend(replica, request.id, requests.RELOADING, reload=number, message=reason)
        execute(replica, "COMMIT")
        log.info("reloaded_to_mend", table=request.table, reason=reason, side=request.side)
