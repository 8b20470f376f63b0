"""Write what a batch brought into a table's history, in the transaction of its rows.

Left: the versions that a fold kept (`versions.Versions`). Right: for each key that changed, the
version that was open is closed at the first change's time, and those of the batch stand behind
it, each ending where the next begins. Times are the source's commits', so both ends are exact.

Few go as prepared statements in the caller's pipeline, many by COPY, straight into the history:
its rows are only ever added, so there is nothing to meet.
"""

from __future__ import annotations

from psycopg import sql

from config.connections import PostgresConnection
from loader.copying import copy_as_text
from loader.fold import blocks
from loader.history_shape import history_name
from loader.naming import STAGE, helper_name
from loader.rawsql import Stage, same_key, spelled_safely
from loader.schema import RawTable, quoted
from loader.staging import Stages
from loader.values import NULL, fields_of
from loader.versions import Versions

FEW = 30
"""Up to so many versions are written by prepared statements."""
_TIMES = ("_valid_from", "_valid_to", "_from_exact", "_to_exact")


class Recorder:
    """The history of one raw table under one shape."""

    def __init__(
        self,
        connection: PostgresConnection,
        stages: Stages,
        place: str,
        shape: RawTable,
        *,
        behind: bool = False,
    ) -> None:
        """`behind`: changes may have been missed, and with them the end of what is open."""
        self._connection = connection
        self._stages = stages
        name = history_name(place)
        history, safe = sql.Identifier(name), spelled_safely(name)
        columns = (*shape.names, *_TIMES)
        self._keys = Stage(helper_name(f"{STAGE}versions_", place), (*shape.key, _TIMES[1]), name)
        exact = sql.Literal(not behind)
        close = (
            "UPDATE {} AS h SET _valid_to = {}, _to_exact = {}{} WHERE h._valid_to IS NULL AND {}"
        )
        by_parameters = sql.SQL(" AND ").join(
            sql.SQL("{} = %s").format(spelled_safely(n)) for n in shape.key
        )
        staged = sql.SQL(" FROM {} AS s").format(sql.Identifier("pg_temp", self._keys.name))
        self._close = self._text(
            sql.SQL(close).format(safe, sql.SQL("%s"), exact, sql.SQL(""), by_parameters)
        )
        self._staged_close = sql.SQL(close).format(
            history, sql.SQL("s._valid_to"), exact, staged, same_key(shape.key, "h", "s")
        )
        self._open = self._text(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                safe,
                sql.SQL(", ").join(map(spelled_safely, columns)),
                sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
            )
        )
        self._copy = sql.SQL("COPY {} ({}) FROM STDIN").format(history, quoted(columns))

    def _text(self, statement: sql.Composed) -> bytes:
        return statement.as_bytes(self._connection)

    def write_small(self, versions: Versions) -> None:
        """Send prepared statements; errors surface when the pipeline ends."""
        for key, moment in versions.closed():
            parameters = [_moment(moment), *map(_text, fields_of(key))]
            self._connection.execute(self._close, parameters, prepare=True)
        for row, since, until in versions.opened():
            end = (None, True, None) if until is None else (_moment(until), True, True)
            parameters = [*map(_text, fields_of(row)), _moment(since), *end]
            self._connection.execute(self._open, parameters, prepare=True)

    def write_large(self, versions: Versions) -> None:
        """Write by COPY."""
        ends = (key + b"\t" + _time(moment) for key, moment in versions.closed())
        self._stages.fill(self._keys, blocks(ends))
        self._connection.execute(self._staged_close)
        lines = (_line(*version) for version in versions.opened())
        copy_as_text(self._connection, self._copy, blocks(lines))


def _line(row: bytes, since: bytes, until: bytes | None) -> bytes:
    end = (NULL, b"t", NULL) if until is None else (_time(until), b"t", b"t")
    return b"\t".join((row, _time(since), *end))


def _time(source_ts: bytes) -> bytes:
    return b"now" if source_ts == NULL else source_ts


def _moment(source_ts: bytes) -> str:
    return _time(source_ts).decode()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
