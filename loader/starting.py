"""Where a session begins: the replica checked, the stored position, every table's life taken up.

Left: what PostgreSQL stored with the last commit, and what the replica says of itself
and of leg 1's tables. Right: an offset to read on from, and `Tables` in the state in
which they were left; copies that were under way are asked for anew.
"""

from __future__ import annotations

import structlog

from config.connections import MySQLConnection, PostgresConnection
from config.tables import TableRules
from loader import naming, schema, tracking
from loader import replica as rep
from loader.ddl.drift import drifted
from loader.ddl.rekeeping import rekeep
from loader.ddl.remasking import remasked
from loader.ddl.statements import Replica, version_number
from loader.lifecycle import Tables
from loader.load.merge import helpers_of
from loader.masking import Masker
from loader.tracking import DROPPED, LOADING, RELOADING, STREAMING, WAITING, Offset
from loader.types import raw_name
from replicator.binlog.position import ReplicaPosition

log = structlog.get_logger()


def prepare_replica(query: MySQLConnection, database: str) -> tuple[int, Replica]:
    """Check the replica's settings; its server id, and what is needed to read its statements."""
    server_id = rep.check_settings(query)
    with query.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = 604800")
        cursor.execute("SELECT VERSION()")
        row = cursor.fetchone()
    return server_id, Replica(database, version_number(str(row[0]) if row else ""))


def stored_offset(postgres: PostgresConnection, server_id: int) -> Offset | None:
    """The offset in PostgreSQL; None where there is none, or it is another replica's."""
    stored = tracking.read_offset(postgres)
    if stored is not None and stored.replica_server_id != server_id:
        log.warning(
            "replica_changed",
            was=stored.replica_server_id,
            now=server_id,
            remedy="reloading every table",
        )
        return None
    return stored


def first_offset(query: MySQLConnection, database: str, server_id: int) -> Offset:
    """Where the replica's binlog ends, and a source position that is surely before it.

    Before leg 1 has noted any it is looked for from an end on that was there first: what is
    noted between two looks would be missed until the source's next transaction.
    """
    position = rep.binlog_end(query)
    mark = rep.read_mark(query, database)
    if mark is not None:
        position = rep.binlog_end(query)
    return Offset(
        position,
        server_id,
        source=mark.position if mark else None,
        source_ts=mark.source_ts if mark else None,
    )


def restore_tables(
    postgres: PostgresConnection,
    rules: TableRules,
    wanted: set[str],
    requests: dict[int, str],
    at: ReplicaPosition,
    *,
    everything: bool,
    reload: frozenset[str],
    masker: Masker,
) -> Tables:
    """Take up every table's life where it was; what was being loaded begins again.

    `wanted`: tables that leg 1 streams. `requests`: resyncs that wait for us, id to table.
    `reload`: tables to be loaded whatever their state; so are those whose raw table is not
    what it was left as.
    """
    tables = Tables()
    tracking.forget_dropped(postgres)
    statuses = tracking.read_statuses(postgres)
    watermarks = {} if everything else tracking.read_watermarks(postgres)
    helpers = [name for table in statuses for name in helpers_of(table)]
    loading = [name for name, status in statuses.items() if status.state == LOADING]
    former = naming.former_helpers(postgres, statuses, loading)
    schema.drop_helpers(postgres, [*helpers, *former])
    for helper in former:
        tracking.clear_all_exceptions(postgres, helper)
    for name, status in statuses.items():
        table = tables.get(name)
        followed = status.state in (STREAMING, RELOADING)
        tables.enter(table, WAITING if everything and followed else status.state)
        table.watermark = watermarks.get(name)
    again = {
        name
        for name, status in statuses.items()
        if status.state in (LOADING, RELOADING) or (everything and status.state == STREAMING)
    }
    if not everything:
        offset = tracking.read_offset(postgres)
        rekeep(postgres, statuses, masker, offset.source_ts if offset else None)
    again |= (reload & set(statuses)) | drifted(postgres, statuses)
    again |= remasked(postgres, statuses, masker)
    fresh = {
        name
        for name in wanted
        if rules.carries(name)
        and (name not in statuses or statuses[name].state in (WAITING, DROPPED))
    }
    carried = {n: t for n, t in requests.items() if rules.carries(t)}
    tables.miss(carried.values())  # leg 1 may have set them aside before
    _load_all(postgres, tables, again | fresh | set(carried.values()), at)
    for number, name in carried.items():
        tables.get(name).requests.append(number)
    return tables


def _load_all(
    postgres: PostgresConnection, tables: Tables, names: set[str], at: ReplicaPosition
) -> None:
    there = schema.read_tables(postgres, [raw_name(name) for name in names])
    for name in sorted(names):
        tables.load(name, exists=raw_name(name) in there, at=at)
