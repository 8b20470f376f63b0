"""`replicator dbt-sources`: keep dbt's `sources.yml` in line with what the pipeline carries.

Left: the schemas that the loader keeps with the rows (`etl_table_schema`), the catalog
of `raw`, and the file. Right: the file written anew where it differs, or, to look only,
what differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import ConfigError, translated
from loader import schema as raw_schema
from loader import tracking as raw_tracking
from loader.ddl import shapes
from loader.masking import masks_of
from loader.types import CLOSING_COLUMNS, raw_name
from replicator.binlog.schema import TableSchema
from replicator.cli.observation import Observer, has_table
from replicator.cli.sources_file import SOURCE, CarriedColumn, CarriedTable, Renewed, renewed

SOURCES_FILE = Path("dbt/models/staging/sources.yml")
_NAMED = re.compile(r"""\bsource\(\s*['"]""" + SOURCE + r"""['"]\s*,\s*['"]([^'"]+)['"]\s*\)""")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the file."""

    path: Path
    tables: int
    columns: int
    changes: tuple[str, ...]
    written: bool

    @property
    def stale(self) -> bool:
        """Does the file still say something else than `raw`?"""
        return bool(self.changes) and not self.written

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": str(self.path),
            "tables": self.tables,
            "columns": self.columns,
            "stale": self.stale,
            "written": self.written,
            "changes": list(self.changes),
        }


def bring_up_to_date(observer: Observer, path: Path, *, look_only: bool) -> Outcome:
    """Compare the file with `raw`; unless `look_only`, write it where it differs."""
    text = _read(path)
    tables = carried_tables(observer)
    new = renewed(
        text,
        tables,
        schema=observer.settings.analytics.schema_name,
        named=named_by_models(path),
        label=str(path),
    )
    written = bool(new.changes) and not look_only
    if written:
        _write(path, new)
    return Outcome(
        path, len(tables), sum(len(table.columns) for table in tables), new.changes, written
    )


# --- what is carried -------------------------------------------------------------------------


def carried_tables(observer: Observer) -> list[CarriedTable]:
    """The tables that stand in `raw` because the pipeline carries them."""
    connection = observer.analytics
    with translated(observer.settings.analytics.label):
        if not has_table(connection, "etl_table_schema"):
            schema = observer.settings.analytics.schema_name
            raise ConfigError(
                f"schema {schema} has nothing of the loader's yet",
                "Start replicator run and loader run; replicator wait returns when raw is filled.",
            )
        states = raw_tracking.read_statuses(connection)
        names = [name for name, at in states.items() if at.state != raw_tracking.DROPPED]
        known = shapes.read_all(connection, names)
        raw = raw_schema.read_tables(connection, [raw_name(name) for name in known])
    return [
        CarriedTable(raw_name(name), _ordered(schema, raw[raw_name(name)]))
        for name, schema in sorted(known.items())
        if raw_name(name) in raw
    ]


def _ordered(schema: TableSchema, raw: raw_schema.RawTable) -> tuple[CarriedColumn, ...]:
    """What `raw` really has, in the source's order: `raw`'s own depends on its past."""
    types = {column.name: column.type for column in raw.columns}
    order = [name for name in (raw_name(c.name) for c in schema.columns) if name in types]
    order += sorted(set(types) - set(order))
    masks = {raw_name(name): mask.kind for name, mask in masks_of(schema).items()}
    found = [CarriedColumn(name, types[name], masks.get(name, "")) for name in order]
    mark = raw_schema.MARK
    closing = (*CLOSING_COLUMNS, *([(mark.name, mark.type)] if raw.soft else []))
    return (*found, *(CarriedColumn(name, kind) for name, kind in closing))


# --- files -----------------------------------------------------------------------------------


def named_by_models(path: Path) -> set[str]:
    """Tables that SQL of the file's dbt project reads through our source."""
    project = next(
        (up for up in path.absolute().parents if (up / "dbt_project.yml").is_file()), None
    )
    if project is None:
        return set()
    found: set[str] = set()
    for model in (project / "models").rglob("*.sql"):
        found.update(_NAMED.findall(model.read_text(encoding="utf-8", errors="replace")))
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        raise ConfigError(
            f"there is no directory {path.parent}",
            "Go to where the dbt project is, or name its sources.yml with --file.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, "read", error) from None


def _write(path: Path, new: Renewed) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(new.text, encoding="utf-8")
        if path.exists():
            fresh.chmod(path.stat().st_mode)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unusable(path, "written", error) from None


def _unusable(path: Path, done: str, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
    return ConfigError(f"{path} cannot be {done}: {reason}", "Name another with --file.")
