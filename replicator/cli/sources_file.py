"""dbt's `sources.yml` as text: what the pipeline carries in, the file brought in line out. Pure.

Left: the file as it is, or None, and the tables of `raw` with their columns. Right: the
file anew, and in words what was not right about it. Tables stand in the order of their
names, columns in the source's. Ours are a table's being there, its columns, their types
and `meta: carried`; every other word is somebody's and is kept, comments too.

dbt refuses a project whose models read a table that no file describes. So a table that
a model names stays in the file where the pipeline does not carry it, marked
`carried: false`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from config.errors import ConfigError

SOURCE = "opendental_raw"

_HEADER = (
    "# Tables and columns: `replicator dbt-sources` brings them up to date and keeps what people"
    " wrote.\n"
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_WORDS = frozenset(["y", "yes", "n", "no", "true", "false", "on", "off", "null"])
"""What dbt's reader of YAML (1.1) takes for something else than a word."""
_LOWER = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class CarriedColumn:
    """A column of `raw`: its name and PostgreSQL's type."""

    name: str
    type: str
    masked: str = ""
    """How its values are masked, in a word."""


@dataclass(frozen=True, slots=True)
class CarriedTable:
    """A table of `raw`; its columns in the order in which the file shall have them."""

    name: str
    columns: tuple[CarriedColumn, ...]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The file's new text, and what has changed in it; no changes, and it is the old text."""

    text: str
    changes: tuple[str, ...]


def renewed(
    text: str | None,
    tables: Iterable[CarriedTable],
    *,
    schema: str,
    named: Collection[str] = (),
    label: str = "sources.yml",
) -> Renewed:
    """Bring the file in line. `named`: tables that models read. `label`: the file, in errors.

    Raises ConfigError where the text is no file of dbt's sources.
    """
    document = _parsed(_HEADER + "version: 2\n" if text is None else text, label)
    source, changes = _our_source(document, schema, label)
    changes += _bring_in_line(source, {table.name: table for table in tables}, set(named), label)
    if text is not None and not changes:
        return Renewed(text, ())
    return Renewed(_dumped(document), tuple(changes) or ("the file is missing",))


# --- reading and writing ---------------------------------------------------------------------


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _parsed(text: str, label: str) -> CommentedMap:
    try:
        document = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise _fault(label, f"not valid YAML{where}: {error.problem}") from None
    except YAMLError:
        raise _fault(label, "not valid YAML") from None
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise _fault(label, "it must hold `sources:`, a list")
    return document


def _dumped(document: CommentedMap) -> str:
    text = io.StringIO()
    _yaml().dump(document, text)
    return text.getvalue()


def _fault(label: str, reason: str) -> ConfigError:
    return ConfigError(f"{label}: {reason}", f"Mend {label}, or move it away for a new one.")


def _entries(holder: CommentedMap, key: str, what: str, label: str) -> list[CommentedMap]:
    """The list under `key`, each item a mapping with a name; [] where there is none."""
    held = holder.get(key)
    if held is None:
        return []
    if not isinstance(held, CommentedSeq):
        raise _fault(label, f"{key} must be a list")
    if not all(isinstance(one, CommentedMap) and isinstance(one.get("name"), str) for one in held):
        raise _fault(label, f"each {what} must be a mapping with a name")
    return list(held)


def _by_name(
    entries: Iterable[CommentedMap], what: str, label: str, key: str = "name"
) -> dict[str, CommentedMap]:
    found: dict[str, CommentedMap] = {}
    for entry in entries:
        name = str(entry.get(key) or entry["name"])
        if name in found:
            raise _fault(label, f"{what} {name} stands there twice")
        found[name] = entry
    return found


def _word(name: str) -> str:
    """A name as dbt will read it back."""
    if _PLAIN.fullmatch(name) and name.lower() not in _NOT_WORDS:
        return name
    quoted: str = DoubleQuotedScalarString(name)
    return quoted


# --- bringing in line ------------------------------------------------------------------------


def _our_source(document: CommentedMap, schema: str, label: str) -> tuple[CommentedMap, list[str]]:
    """The source's mapping, made where it is missing, and what was wrong with its head."""
    sources = _by_name(_entries(document, "sources", "source", label), "source", label)
    source = sources.get(SOURCE)
    if source is None:
        source = CommentedMap(
            name=SOURCE,
            description="Raw OpenDental data from ELT pipeline",
            schema=_word(schema),
            config=CommentedMap(loaded_at_field="_loaded_at"),
        )
        if document.get("sources") is None:
            document["sources"] = CommentedSeq()
        document["sources"].append(source)
        return source, [f"source {SOURCE} is missing"]
    held = str(source.get("schema", SOURCE))
    if held == schema or "{{" in held:
        return source, []
    source["schema"] = _word(schema)
    return source, [f"the schema is {schema}, not {held}"]


def _bring_in_line(
    source: CommentedMap, carried: dict[str, CarriedTable], named: set[str], label: str
) -> list[str]:
    held = _entries(source, "tables", "table", label)
    there = _by_name(held, "table", label, key="identifier")
    changes = [
        f"table {name} is not carried"
        for name in there
        if name not in carried and name not in named
    ]
    entries: list[CommentedMap] = []
    for name in sorted({*carried, *named}):
        entry = there.get(name) or CommentedMap(name=_word(name), description=f"Raw {name} data")
        table = carried.get(name)
        said = _columns(entry, table, label) if table else []
        said += _mark(entry, name, carried=table is not None)
        changes += said if name in there else [f"table {name} is missing"]
        entries.append(entry)
    if not changes and entries != held:
        changes.append("tables stand in another order")
    if entries != held:
        source["tables"] = CommentedSeq(entries)
    return changes


def _columns(entry: CommentedMap, table: CarriedTable, label: str) -> list[str]:
    """Give a table its columns; what was wrong with them."""
    what = f"column of {table.name}"
    held = _entries(entry, "columns", what, label)
    there = _by_name(held, what, label)
    wanted = {column.name for column in table.columns}
    changes = [f"{table.name}.{name} is not carried" for name in there if name not in wanted]
    entries: list[CommentedMap] = []
    for column in table.columns:
        one = there.get(column.name)
        if one is None:
            one = _new_column(column)
            changes.append(f"{table.name}.{column.name} is missing")
        elif one.get("data_type") != column.type:
            one["data_type"] = column.type
            changes.append(f"{table.name}.{column.name} is {column.type}")
        changes += _tell_mask(one, f"{table.name}.{column.name}", column.masked)
        entries.append(one)
    if not changes and entries != held:
        changes.append(f"columns of {table.name} stand in another order")
    if entries != held:
        entry["columns"] = CommentedSeq(entries)
    return changes


_OURS = {
    "_loaded_at": "When the loader wrote this version of the row.",
    "_source_ts": "When the source committed this version of the row.",
    "_deleted_at": "When the source deleted the row; NULL while it has it.",
}


def _new_column(column: CarriedColumn) -> CommentedMap:
    entry = CommentedMap(name=_word(column.name))
    if not _LOWER.fullmatch(column.name):
        entry["quote"] = True  # else dbt's tests would ask for it in lower case
    entry["data_type"] = column.type
    if column.name in _OURS:
        entry["description"] = _OURS[column.name]
    return entry


def _tell_mask(entry: CommentedMap, name: str, masked: str) -> list[str]:
    """Say in a column's meta how its values are masked, or no longer say so."""
    config: Any = entry.get("config") or CommentedMap()
    meta: Any = config.get("meta") or CommentedMap()
    if (meta.get("masked") or "") == masked:
        return []
    if masked:
        meta["masked"] = masked
        config["meta"] = meta
        entry["config"] = config
        return [f"{name} is masked ({masked})"]
    del meta["masked"]
    _drop_if_empty(config, "meta", meta)
    _drop_if_empty(entry, "config", config)
    return [f"{name} is no longer masked"]


def _mark(entry: CommentedMap, name: str, *, carried: bool) -> list[str]:
    """Say in the table's meta that it is not carried, or no longer say so."""
    config: Any = entry.get("config") or CommentedMap()
    meta: Any = config.get("meta") or CommentedMap()
    if carried and "carried" in meta:
        del meta["carried"]
        _drop_if_empty(config, "meta", meta)
        _drop_if_empty(entry, "config", config)
        return [f"table {name} is carried"]
    if not carried and meta.get("carried") is not False:
        meta["carried"] = False
        config["meta"] = meta
        entry["config"] = config
        return [f"table {name} is not carried"]
    return []


def _drop_if_empty(holder: CommentedMap, key: str, held: CommentedMap) -> None:
    if not held:
        del holder[key]


def summary(changes: Sequence[str], most: int = 3) -> str:
    """The first few changes, and how many more there are."""
    said = "; ".join(changes[:most])
    return said if len(changes) <= most else f"{said}; and {len(changes) - most} more"
