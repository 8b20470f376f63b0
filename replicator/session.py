"""What leg 1 holds open while it works: its connections, and who is at their other end.

Left: settings and table rules. Right: connections to source and replica that are
checked to belong together, and what is made from them: binlog streams, copiers,
the reader of the source's statements. When anything breaks, all of it is closed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from config.connections import connect_mysql, connect_source
from config.errors import ConfigError, SourceReset, translated
from config.settings import Settings
from config.tables import TableRules
from replicator import replica as rep
from replicator import source as src
from replicator import tracking
from replicator.announce import announcement
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.reconcile import Reconciler
from replicator.snapshot import TableCopier
from replicator.statements import read_statements
from replicator.throttle import Ceiling
from replicator.tracking import Offset, execute, execute_bytes

_RAW_SESSION = ("SET character_set_results=NULL", "SET time_zone='+00:00'")


class Session:
    """Opened by its constructor, which raises what an operator must mend.

    `catalog` reads the source's definitions; `replica` writes what leg 2 is to see, and
    holds the lock; `hidden` writes what it is not to see.
    """

    def __init__(self, settings: Settings, rules: TableRules) -> None:
        self.settings = settings
        self.rules = rules
        self._closers: list[Any] = []
        self._positions: list[tuple[float, SourcePosition]] = []
        self._format_description = b""
        self._ceiling = Ceiling(settings.replicator.copy_bytes_per_second)
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
        self.hidden = self.kept(rep.connect_hidden(settings.replication))
        with translated(settings.replication.label):
            self.replica_identity = src.identify(self.replica)
            self._require_same_family()
        with translated("source or replica"):
            self.statements = read_statements(
                self.catalog,
                self.replica,
                self.identity,
                self.replica_identity,
                source_db=settings.source.db,
                replica_db=settings.replication.db,
                carries=self.rules.carries,
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

    def _require_same_family(self) -> None:
        if self.identity.mariadb != self.replica_identity.mariadb:
            raise ConfigError(
                f"source ({self.identity.version}) and replica"
                f" ({self.replica_identity.version}) are of different families",
                hint="Run the replica on the source's family: MariaDB with MariaDB, MySQL with"
                " MySQL. Row events are applied as they are, and the families differ there.",
            )

    def require_same_source(self, offset: Offset) -> None:
        """`SourceReset` or `PositionLost` where the source cannot go on from `offset`."""
        now = (self.identity.server_id, self.identity.uuid)
        if now != (offset.server_id, offset.server_uuid):
            raise SourceReset(
                f"the source is another server than the replica was copied from (server id"
                f" {now[0]} instead of {offset.server_id})",
                hint="Point OPENDENTAL_SOURCE_HOST back to it; or, to follow the new one, run"
                " replicator resync --all and start again: everything is copied anew.",
            )
        with translated(self.settings.source.label):
            src.require_file(self.catalog, offset.position)

    def binlog(self, server_id: int) -> BinlogStream:
        """A stream of the source's binlog, not yet open; `server_id` is its alone."""
        settings = self.settings
        return BinlogStream(
            lambda: connect_mysql(settings.source),
            server_id=server_id,
            heartbeat_seconds=settings.replicator.heartbeat_seconds,
            name=settings.source.label,
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

    def history(self, connection: Any) -> src.PositionHistory:
        """The ends of the source's binlog, shared by all copies of this session."""
        gap = self.settings.replicator.copy_gap_seconds
        return src.PositionHistory(connection, self.identity, gap, self._positions)

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
            for statement in _RAW_SESSION:
                execute(connection, statement)
        return connection


def close_all(connections: list[Any]) -> None:
    """Close them, the last opened first, whatever state they are in."""
    for connection in reversed(connections):
        with suppress(Exception):
            connection.close()
