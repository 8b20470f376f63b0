"""What leg 1 holds open while it works: its connections, and who is at their other end.

Left: settings and table rules. Right: connections to source and replica that are
checked to belong together, and what is made from them: binlog streams, copiers,
the reader of the source's statements. When anything breaks, all of it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from config.connections import connect_mysql, connect_source
from config.errors import ConfigError, translated
from config.settings import Settings
from config.tables import TableRules
from replicator import replica as rep
from replicator import source as src
from replicator import tracking
from replicator.announce import announcement
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.pair import ends_differ, require_fitting, require_no_versions
from replicator.prepared import PreparedTransactions
from replicator.provenance import Provenance
from replicator.reconcile import Reconciler
from replicator.settling import PositionHistory
from replicator.snapshot import TableCopier
from replicator.statements import read_statements
from replicator.throttle import Ceiling
from replicator.tracking import execute, execute_bytes
from replicator.virtual_columns import UNCOMMITTED, WORKED_OUT_FROM, VirtualColumns
from replicator.zones import known_from

RAW_SESSION = (
    "SET SESSION character_set_results=NULL",
    "SET SESSION time_zone='+00:00'",
    "SET SESSION group_concat_max_len=4294967295",  # `jsonencoding` lists with it
)
"""What a session on the source needs that is to give values as they are stored."""

_XA_ID = 0x1000_0000
"""Turns a stream's server id into that of the streams in which it reads things again."""


class Session:
    """Opened by its constructor, which raises what an operator must mend.

    `catalog` reads the source's definitions; `replica` writes what leg 2 is to see, and
    holds the lock; `hidden` writes what it is not to see.
    """

    def __init__(
        self, settings: Settings, rules: TableRules, copy_rate: Callable[[], int] | None = None
    ) -> None:
        """`copy_rate`: what copies may read on the source, bytes a second, asked each time."""
        self.settings = settings
        self.rules = rules
        self._closers: list[Any] = []
        self._positions: list[tuple[float, SourcePosition]] = []
        self._format_description = b""
        self._ceiling = Ceiling(
            settings.replicator.copy_bytes_per_second if copy_rate is None else copy_rate
        )
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        settings = self.settings
        self.catalog = self.kept(connect_source(settings))
        with translated(settings.source.label):
            self.identity = src.identify(self.catalog)
            src.require_row_format(self.catalog)
            self.charset, self.collation = self._source_charset()
        rep.prepare_database(settings, self.charset, self.collation)
        self.replica = self.kept(rep.open_main(settings))
        self.hidden = self.kept(rep.open_side(settings.replication, self.replica))
        with translated(settings.replication.label):
            self.replica_identity = src.identify(self.replica)
            require_fitting(self.identity, self.replica_identity)
            if ends_differ(self.identity.number, self.replica_identity.number):
                require_no_versions(self.replica, settings.replication.db, self.rules.carries)
        with translated("source or replica"):
            self.statements = read_statements(
                self.catalog,
                self.replica,
                self.identity,
                self.replica_identity,
                source_db=settings.source.db,
                replica_db=settings.replication.db,
                carries=self.rules.carries,
                zone_known_from=known_from(self.catalog, self.hidden),
            )

    def kept(self, connection: Any) -> Any:
        """Close it with the session."""
        self._closers.append(connection)
        return connection

    def close(self) -> None:
        """Give everything back."""
        self._ceiling.close()
        close_all(self._closers)
        self._closers.clear()

    def _source_charset(self) -> tuple[str, str]:
        database = self.settings.source.db
        rows = tracking.fetch(
            self.catalog,
            "SELECT default_character_set_name, default_collation_name"
            " FROM information_schema.schemata WHERE schema_name=%s",
            [database],
        )
        if not rows:
            raise ConfigError(
                f"the source has no database {database} that this account may read",
                hint="Check OPENDENTAL_SOURCE_DB, and GRANT SELECT on it.",
            )
        return rows[0]

    @property
    def provenance(self) -> Provenance:
        """What tells whether the source's binlog still is the one that was read."""
        server_id = self.settings.replicator.server_id
        return Provenance(self.catalog, self.identity, lambda: self.binlog(server_id))

    def binlog(self, server_id: int) -> BinlogStream:
        """A stream of the source's binlog, not yet open; `server_id` is its alone."""
        settings = self.settings
        return BinlogStream(
            lambda: connect_mysql(settings.source),
            server_id=server_id,
            heartbeat_seconds=settings.replicator.heartbeat_seconds,
            name=settings.source.label,
        )

    def prepared(self, server_id: int, catalog: Any) -> PreparedTransactions:
        """The XA transactions of the stream that has this server id."""
        return PreparedTransactions(
            lambda: self.binlog(server_id ^ _XA_ID), lambda: src.binlog_files(catalog)
        )

    def read_format_description(self, position: SourcePosition) -> None:
        """Learn how the source's events are laid out, for copies; proves the grant to read them."""
        stream = self.binlog(self.settings.replicator.server_id)
        try:
            stream.open(position)
            while not stream.format_description:
                stream.read(self.settings.replicator.poll_seconds)
        finally:
            stream.close()
        self._format_description = stream.format_description

    def history(self, connection: Any) -> PositionHistory:
        """The ends of the source's binlog, shared by all copies of this session."""
        gap = self.settings.replicator.copy_gap_seconds
        return PositionHistory(connection, self.identity, gap, self._positions)

    def copier(
        self, catalog: Any, reader: Any, replica: Any, reconciler: Reconciler
    ) -> TableCopier:
        """A copier on connections of its own; `replica` learns the binlog's format."""
        tuning = self.settings.replicator
        mariadb = self.replica_identity.mariadb
        for statement in announcement(self._format_description, mariadb=mariadb):
            execute_bytes(replica, statement)
        return TableCopier(
            catalog,
            reader,
            replica,
            reconciler,
            source_db=self.settings.source.db,
            replica_db=self.settings.replication.db,
            identity=self.identity,
            replica_identity=self.replica_identity,
            history=self.history(catalog),
            chunk_rows=tuning.copy_chunk_rows,
            lock=tuning.copy_lock == "short",
            ceiling=self._ceiling,
        )

    def raw_source(self) -> Any:
        """A source connection that gives every value as the bytes it is stored in."""
        connection = connect_source(self.settings, use_unicode=False, conv={})
        with translated(self.settings.source.label):
            for statement in RAW_SESSION:
                execute(connection, statement)
        return connection

    def virtual_columns(self) -> VirtualColumns | None:
        """What completes the main stream's events; None where the replica's server does."""
        identity = self.replica_identity
        if identity.mariadb and identity.number >= WORKED_OUT_FROM:
            return None
        return VirtualColumns(
            self.replica,
            self.hidden,
            self.settings.replication.db,
            self._uncommitted_reader,
            mariadb=identity.mariadb,
        )

    def _uncommitted_reader(self) -> Any:
        server = self.settings.replication
        reader = connect_mysql(server, database=server.db, use_unicode=False, conv={})
        for statement in (*RAW_SESSION, UNCOMMITTED):
            execute(reader, statement)
        return self.kept(reader)


def close_all(connections: list[Any]) -> None:
    """Close them, the last opened first, whatever state they are in."""
    for connection in reversed(connections):
        with suppress(Exception):
            connection.close()
