"""Carry a statement of the source's binlog to the replica: each schema change exactly once.

Left: a `Statement` in its place in the stream. Right: the same change on the
replica, in the session context that the event carries, and the tables' states
and routes after it. DDL commits by itself, so it cannot share a transaction with
the offset: what is about to be done is recorded first, with a signature of every
table concerned, and on restart the signatures tell whether it was done.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pymysql
import structlog

from config import metrics
from config.connections import quote_mysql_identifier as quote
from config.errors import (
    Halt,
    StatementFormat,
    UnsupportedStatement,
    classify,
)
from config.failpoints import reach
from replicator import copy_progress, resync_requests, tracking
from replicator.binlog.ddl import (
    Execute,
    RowStatement,
    Skip,
    TransactionControl,
    Unsupported,
)
from replicator.binlog.ddl_rename import PARKED_PREFIX
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import schemas_from_catalog
from replicator.binlog.transactions import Moved, Statement
from replicator.exact import ExactMySQLReplicator
from replicator.replica import make_neutral
from replicator.routes import Routes
from replicator.statements import Statements, copied
from replicator.tracking import TableState, execute, execute_bytes, fetch

log = structlog.get_logger(__name__)

_UNKNOWN_TABLE = 1051
_NO_SUCH_TABLE = 1146
_NO_KEY_FOR_NUMBERS = 1075


class _NotHere(Exception):
    """The replica lacks a table that it was never told of: the catalog hid it for a moment."""


class _NoKeyForNumbers(Exception):
    """MyISAM numbers rows within the parts of a key before the number's; InnoDB cannot.

    The change may number rows too, in an order of the source's own. So it takes a copy, whose
    table has the same columns, without AUTO_INCREMENT.
    """


class SchemaChanges:
    """Applies the statements of the main stream."""

    def __init__(
        self,
        connection: Any,
        replicator: ExactMySQLReplicator,
        routes: Routes,
        statements: Statements,
        replica_db: str,
    ) -> None:
        self._connection = connection
        self._replicator = replicator
        self._routes = routes
        self._statements = statements
        self._replica_db = replica_db
        self.skipped: Counter[str] = Counter()

    def apply(self, statement: Statement) -> Collection[str]:
        """Execute, skip or refuse one statement; the tables that it may have changed."""
        verdict = self._statements.verdict(statement.query, self._routes.known)
        match verdict:
            case TransactionControl():
                self._control(statement)
            case Skip(reason=reason):
                self._skip(statement, reason)
            case RowStatement(verb=verb):
                raise StatementFormat(
                    f"the source logged {verb} as a statement, ending at {statement.position}",
                    hint="On the source: SET GLOBAL binlog_format = 'ROW'; (and binlog_format=ROW"
                    " in its my.cnf), restart its clients, then: replicator resync --all",
                )
            case Unsupported(reason=reason, hint=hint):
                raise UnsupportedStatement(f"{reason}, at {statement.position}", hint=hint)
            case Execute():
                exact = self._statements.exact(statement.query, verdict, self._connection)
                self._execute(statement, exact)
                return verdict.tables
        return ()

    def _control(self, statement: Statement) -> None:
        if statement.in_transaction:
            self._replicator.run_inside_transaction(self._statements.text(statement.query))
        else:
            self._pass(statement)

    def _skip(self, statement: Statement, reason: str) -> None:
        if not self.skipped[reason]:
            log.info("statements_skipped", kind=reason, position=str(statement.position))
        self.skipped[reason] += 1
        metrics.STATEMENTS_SKIPPED.labels(reason).inc()
        if not statement.in_transaction:
            self._pass(statement)

    def _pass(self, statement: Statement) -> None:
        self._replicator.apply(Moved(statement.position))

    # --- tables that are being copied ----------------------------------------------------

    def _execute(self, statement: Statement, verdict: Execute) -> None:
        if not statement.position.offset:  # MariaDB 11.8, behind rows that are not ours
            raise _inside(statement, verdict)
        here = self._replicator.reached
        if verdict.like and not self._is_as_of(verdict.like, here):
            verdict = replace(verdict, sql="", needs_copy=verdict.tables)
        windows = {t: self._routes.window(t) for t in verdict.tables}
        covered = [
            t
            for t in verdict.tables
            if self._routes.skips(t) or ((w := windows[t]) is not None and here < w.low)
        ]
        inside = [t for t in verdict.tables if self._routes.inside(t, here)]
        if not covered and (not inside or set(inside) <= set(verdict.truncated)):
            # A table that is emptied has the right rows from there on, whatever its copy had read;
            # but the copy's columns are of a moment to come, so its window stays as it is.
            self._run(statement, verdict, windowed=inside)
        elif set(covered) == set(verdict.tables):
            self._note_covered(statement, verdict)
        else:
            self._requeue(statement, verdict)

    def _is_as_of(self, table: str, here: SourcePosition) -> bool:
        """Is the replica's definition of the table the one that the source had here?

        While it waits for a copy the replica may not have it at all, or in an older form; and a
        copy is made in the form of a moment that the stream may not have reached.
        """
        window = self._routes.window(table)
        passed = window is None or window.high <= here
        return self._routes.known(table) and not self._routes.skips(table) and passed

    def _note_covered(self, statement: Statement, verdict: Execute) -> None:
        """The copy of these tables was read, or will be read, behind this change."""
        skipped = [t for t in verdict.tables if self._routes.skips(t)]
        left = _left_by(verdict)
        come = {b for _, b in verdict.renames} | set(verdict.created)
        gone = [t for t in skipped if t not in left]
        self._replicator.flush()
        for table in gone:  # what an unfinished copy, or one that is not exact, has put there
            execute(self._connection, f"DROP TABLE IF EXISTS {quote(table)}")
        queued = [t for t in skipped if t in left & come]
        self._finish(statement, _Outcome(forgotten=gone, queued=queued))

    def _requeue(self, statement: Statement, verdict: Execute) -> None:
        """A table changed its shape while it was copied: copy it again."""
        left = _left_by(verdict)
        gone = set(verdict.tables) - left
        again = [t for t in verdict.tables if t in left]
        self._replicator.flush()
        for table in verdict.tables:
            execute(self._connection, f"DROP TABLE IF EXISTS {quote(table)}")
        log.info("copy_begins_again", tables=again, kind=verdict.kind)
        self._finish(statement, _Outcome(forgotten=sorted(gone), queued=again))

    # --- execution -----------------------------------------------------------------------

    def _run(self, statement: Statement, verdict: Execute, windowed: Collection[str]) -> None:
        if self._replicator.has_open_rows:
            raise _inside(statement, verdict)
        self._replicator.flush()
        outcome = _Outcome.of(verdict, windowed)
        if verdict.statements:
            reach("ddl.before")
            self._record(statement, verdict, outcome)
            reach("ddl.recorded")
            try:
                self._run_statements(statement, verdict)
            except _NoKeyForNumbers:
                log.info("copied_for_its_numbers", tables=verdict.tables, kind=verdict.kind)
                self._run(statement, copied(verdict), windowed)
                return
            except _NotHere:
                self._requeue(statement, verdict)
                return
            reach("ddl.executed")
        for engine in verdict.engines:
            if engine.lower() != "innodb":
                log.info("engine_replaced", tables=verdict.tables, engine=engine, stored="InnoDB")
        log.info(
            "schema_changed",
            kind=verdict.kind,
            tables=verdict.tables,
            position=str(statement.position),
        )
        metrics.STATEMENTS.labels(verdict.kind).inc()
        self._finish(statement, outcome)

    def _record(self, statement: Statement, verdict: Execute, outcome: _Outcome) -> None:
        tracking.set_pending(
            self._connection,
            tracking.MAIN,
            {
                "what": "ddl",
                "kind": verdict.kind,
                "position": [statement.position.file, statement.position.offset],
                "timestamp": statement.query.timestamp,
                "gtid": statement.gtid,
                "signatures": self._signatures(verdict.tables),
                **outcome.as_dict(),
            },
        )

    def _signatures(self, tables: Iterable[str]) -> dict[str, str | None]:
        return {t: signature(self._connection, self._replica_db, t) for t in tables}

    def _run_statements(self, statement: Statement, verdict: Execute) -> None:
        """Run it as the source ran it; a failure that the source had too is expected."""
        try:
            for setting in self._statements.session(statement.query):
                execute(self._connection, setting)
            for sql in verdict.statements:
                self._run_one(sql, statement, verdict)
        finally:
            self._reset()

    def _reset(self) -> None:
        try:
            for sql in self._statements.reset():
                execute(self._connection, sql)
            make_neutral(self._connection)
        except (pymysql.MySQLError, OSError) as error:
            raise classify(error, server="replica") from None

    def _run_one(self, sql: str, statement: Statement, verdict: Execute) -> None:
        try:
            text = self._statements.encoded(sql, statement.query)
            reach("ddl.ready")
            execute_bytes(self._connection, text)
        except pymysql.MySQLError as error:
            code = error.args[0] if error.args else None
            if code == statement.query.error_code:
                return
            if verdict.kind == "drop table" and code in (_UNKNOWN_TABLE, _NO_SUCH_TABLE):
                return  # every table of the list that is there has been dropped
            if code == _NO_SUCH_TABLE and not all(map(self._routes.known, verdict.tables)):
                raise _NotHere from None
            if code == _NO_KEY_FOR_NUMBERS and not verdict.needs_copy:
                raise _NoKeyForNumbers from None
            known = classify(error, server="replica")
            if not isinstance(known, Halt):
                raise known from None
            raise UnsupportedStatement(
                f"the replica refused a {verdict.kind} of {', '.join(verdict.tables)} at"
                f" {statement.position} (error {code})",
                hint="Make the same change on the replica by hand, or: replicator resync "
                + " ".join(verdict.tables),
            ) from None

    def _finish(self, statement: Statement, outcome: _Outcome) -> None:
        if not isinstance(statement.position, SourcePosition):
            raise TypeError("a replica's statement reached leg 1")
        self._replicator.flush()
        when = datetime.fromtimestamp(statement.query.timestamp, UTC).replace(tzinfo=None)
        after = replace(
            self._replicator.committed,
            position=statement.position,
            gtid=self._replicator.committed.executed(statement.gtid).gtid,
            event_timestamp=when,
            pending_ddl=None,
        )
        self._settle(after, outcome)

    def _settle(self, after: tracking.Offset, outcome: _Outcome) -> None:
        """States, requests and the offset behind the change, in one transaction."""
        connection = self._connection
        hashes = schemas_from_catalog(connection, self._replica_db, outcome.changed)
        execute(connection, "BEGIN")
        for table in outcome.forgotten:
            tracking.forget_table(connection, table)
            copy_progress.forget_progress(connection, table)
            resync_requests.fail_restarted(connection, table)
        for table in outcome.changed:
            if table in hashes:
                tracking.set_state(
                    connection, table, TableState.STREAMING, schema_hash=hashes[table].hash
                )
                copy_progress.forget_progress(connection, table)
                resync_requests.answer_restarted(connection, table)
        for table in outcome.queued:
            tracking.set_state(connection, table, TableState.QUEUED)
            copy_progress.forget_progress(connection, table)
        resync_requests.queue_resync(connection, outcome.queued)
        tracking.write_offset(connection, after)
        reach("ddl.before_commit")
        execute(connection, "COMMIT")
        reach("ddl.noted")
        concerned = (*outcome.forgotten, *outcome.changed, *outcome.queued)
        self._replicator.moved_to(after, concerned)
        for table in outcome.forgotten:
            self._routes.forget(table)
        for table in outcome.changed:
            if table in hashes:
                self._routes.stream(table)
        for table in outcome.queued:
            self._routes.skip(table)

    # --- restart -------------------------------------------------------------------------

    def recover(self, offset: tracking.Offset) -> None:
        """Find out whether a recorded change was made before we died; note it where it was."""
        self._sweep()
        pending = json.loads(offset.pending_ddl or "{}")
        if pending.get("what") != "ddl":
            return
        before = pending["signatures"]
        done = self._signatures(before) != before
        log.info("schema_change_resolved", kind=pending["kind"], tables=sorted(before), done=done)
        if not done or pending["kind"] == "drop table":
            return  # the stream brings the statement again; a list half dropped is dropped on
        when = datetime.fromtimestamp(pending["timestamp"], UTC).replace(tzinfo=None)
        after = replace(
            offset,
            position=SourcePosition(*pending["position"]),
            gtid=offset.executed(pending["gtid"]).gtid,
            event_timestamp=when,
            pending_ddl=None,
        )
        self._settle(after, _Outcome.from_dict(pending))

    def _sweep(self) -> None:
        """Drop what was to be dropped behind a RENAME that we did not outlive."""
        for (table,) in fetch(
            self._connection,
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND LEFT(table_name, %s) = %s",
            [len(PARKED_PREFIX), PARKED_PREFIX],
        ):
            log.info("parked_table_dropped", table=table)
            execute(self._connection, f"DROP TABLE IF EXISTS {quote(table)}")


def _inside(statement: Statement, verdict: Execute) -> UnsupportedStatement:
    return UnsupportedStatement(
        f"a {verdict.kind} stands inside a transaction with rows before it, at"
        f" {statement.position}",
        hint="Report it with the server's version.",
    )


def _left_by(verdict: Execute) -> set[str]:
    """The statement's tables that are there after it; a swap's third name is not."""
    left = set(verdict.tables) - (set(verdict.dropped) - set(verdict.created))
    for old, new in verdict.renames:
        left.discard(old)
        left.add(new)
    return left


class _Outcome:
    """What a statement leaves: tables gone, tables to stream on with, tables to copy."""

    def __init__(
        self,
        forgotten: Iterable[str] = (),
        changed: Iterable[str] = (),
        queued: Iterable[str] = (),
    ) -> None:
        self.forgotten, self.changed, self.queued = list(forgotten), list(changed), list(queued)

    @classmethod
    def of(cls, verdict: Execute, windowed: Collection[str]) -> _Outcome:
        """`windowed` tables stay what they were, in the window of their copy."""
        left, queued = _left_by(verdict), set(verdict.needs_copy)
        return cls(
            forgotten=sorted(set(verdict.tables) - left - queued),
            changed=sorted(left.difference(queued, windowed)),
            queued=sorted(queued),
        )

    def as_dict(self) -> dict[str, list[str]]:
        return {"forgotten": self.forgotten, "changed": self.changed, "queued": self.queued}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> _Outcome:
        return cls(record["forgotten"], record["changed"], record["queued"])


def signature(connection: Any, database: str, table: str) -> str | None:
    """A digest of a table's definition and identity; None where it is absent.

    The engine's own table id is part of it, so that a truncated, rebuilt or swapped table
    differs from what stood there under the same definition.
    """
    try:
        definition = fetch(connection, f"SHOW CREATE TABLE {quote(table)}")[0][1]
    except pymysql.ProgrammingError as error:
        if error.args[0] == _NO_SUCH_TABLE:
            return None
        raise
    mariadb = "mariadb" in str(connection.server_version).lower()
    ids = (_ids_on_mariadb if mariadb else _ids_on_mysql)(connection, database, table)
    return hashlib.sha256(json.dumps([definition, ids]).encode()).hexdigest()


def _ids_on_mariadb(connection: Any, database: str, table: str) -> Any:
    """The ids of the table and its partitions, known by their files' escaped names."""
    file = fetch(
        connection,
        "SELECT CONVERT(CONCAT(CAST(CONVERT(%s USING filename) AS BINARY), '/',"
        " CAST(CONVERT(%s USING filename) AS BINARY)) USING utf8mb3)",
        [database, table],
    )[0][0]
    return fetch(
        connection,
        "SELECT table_id FROM information_schema.innodb_sys_tables"
        " WHERE name = %s OR LEFT(name, %s) = %s ORDER BY table_id",
        [file, len(file) + 3, file + "#P#"],
    )


def _ids_on_mysql(connection: Any, database: str, table: str) -> Any:
    """The ids of the files of the table and its partitions, named there as the tables are.

    MySQL escapes tables' names for nobody; every table has a file (innodb_file_per_table).
    """
    file = f"{database}/{table}"
    return fetch(
        connection,
        "SELECT space FROM information_schema.innodb_tablespaces"
        " WHERE name = %s OR LEFT(name, %s) = %s ORDER BY space",
        [file, len(file) + 3, file + "#p#"],
    )
