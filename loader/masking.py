"""Masked columns: a table's schema in, the same with its masks out; a value's reader in, a masked
one out.

What is kept of a table's deleted rows (`keeping`) is put into its schema here as well.

A `MaskedColumn` is a column that says what becomes of its values. It is made in one place,
`Masker.schema`, through which every schema passes that the loader reads, from a table map or
from the catalog. All that follows from a schema follows from the masks too: the column's type
in `raw`, how a row image and a SELECT's row are read, and what `etl_table_schema`
stores. So a rule that changes is a schema that changes, stored in the transaction of the
rows that it was applied to.

*Nothing slips by*: the mask wraps the one function that turns a column's bytes into COPY text.
What is behind it (folds, stages, touched tables, the quarantine, PostgreSQL's messages) has only
seen its result. The other way out, faults with a value's original bytes, is cut in the same
place. *Exact*: the stream and a copy make the same COPY text of a value, and a mask is a function
of that text alone, so both write the same.

The key of `hash` is kept here, found by its fingerprint; no column and no schema has it.
Pure, but for that.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Final

from config.errors import ConfigError
from config.keeping import Keeping
from config.privacy import DROP, HASH, PREFIX, REDACT, YEAR, Mask, PrivacyRules
from config.settings import Settings
from config.tables import TableRules
from loader.keeping import NOTHING, faults_of, keeping_of, kept_for, with_keeping
from loader.values import Faults, TextOf, ValueFault, escaped, unescaped
from replicator.binlog.schema import Column, TableSchema

REDACTED: Final = b"[redacted]"
DATES: Final = frozenset({"date", "datetime", "timestamp"})
TEXTS: Final = frozenset(
    {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"}
)

Reader = Callable[[bytes, int, Faults], tuple[bytes | None, int]]
"""As `wire.Reader`, which rests on this module."""
Apply = Callable[[bytes | None, Faults, Faults], bytes | None]
"""(COPY text or None, the value's own faults, faults to be noted) to masked COPY text."""


@dataclass(frozen=True, slots=True)
class MaskedColumn(Column):
    """A column whose values are masked."""

    mask: Mask


def mask_of(column: Column) -> Mask | None:
    """The column's mask; None where its values go as they are."""
    return column.mask if isinstance(column, MaskedColumn) else None


def is_dropped(column: Column) -> bool:
    """Does the column stay away from `raw`?"""
    mask = mask_of(column)
    return mask is not None and mask.kind == DROP


def masks_of(schema: TableSchema) -> dict[str, Mask]:
    """The masks of a schema's columns."""
    return {c.name: mask for c in schema.columns if (mask := mask_of(c)) is not None}


def kept(schema: TableSchema) -> TableSchema:
    """The schema without the columns that are dropped; itself where there are none."""
    if not any(map(is_dropped, schema.columns)):
        return schema
    columns = tuple(column for column in schema.columns if not is_dropped(column))
    places = {column.name: place for place, column in enumerate(columns)}
    key = tuple(places[schema.columns[index].name] for index in schema.primary_key)
    return replace(schema, columns=columns, primary_key=key)


def bare(column: Column) -> Column:
    """The column without a mask."""
    if not isinstance(column, MaskedColumn):
        return column
    return Column(**{field.name: getattr(column, field.name) for field in fields(Column)})


# --- schemas -----------------------------------------------------------------------------------


class Masker:
    """Applies the rules to schemas. Raises ConfigError for a rule that a column cannot take."""

    def __init__(self, rules: TableRules, key: str | None) -> None:
        if rules.privacy.hashes and key is None:
            raise ConfigError(
                'tables.toml masks columns by "hash", and there is no key',
                "Set LOADER_PRIVACY_KEY_FILE to a file with at least 32 characters, for instance"
                " of: openssl rand -hex 32",
            )
        self._carries = rules.carries
        self._rules: PrivacyRules = rules.privacy
        self._keeping = rules.keeping
        self._key = _keyring.add(key) if key is not None else ""

    def __bool__(self) -> bool:
        return bool(self._rules) or bool(self._keeping)

    def schema(self, schema: TableSchema) -> TableSchema:
        """A table's schema with its masks, and what is kept of it; raises ConfigError."""
        return self.schemas({schema.name: schema})[schema.name]

    def schemas(self, found: Mapping[str, TableSchema]) -> dict[str, TableSchema]:
        """`schema` for each of them; one error for all."""
        if not self:
            return dict(found)
        faults = [fault for schema in found.values() for fault in self.faults(schema)]
        if faults:
            raise _cannot(faults)
        unkept = [fault for schema in found.values() for fault in self.unkept(schema)]
        if unkept:
            raise _cannot_keep(unkept)
        return {
            name: with_keeping(self._masked(schema), self.keeping(schema))
            for name, schema in found.items()
        }

    def keeping(self, schema: TableSchema) -> Keeping:
        """What the rules keep of a table."""
        if not self._keeping or not schema.primary_key or not self._carries(schema.name):
            return NOTHING
        return self._keeping.keeping(schema.name)

    def is_keyless(self, schema: TableSchema) -> bool:
        """Would the rules keep more of the table, had it a key?"""
        wanted = self._carries(schema.name) and self._keeping.keeping(schema.name)
        return bool(wanted) and not schema.primary_key

    def unkept(self, schema: TableSchema) -> list[str]:
        """Why the rules of [table.…] cannot hold for this table."""
        name = schema.name
        if not self._keeping or not self._carries(name):
            return []
        wanted = self._keeping.keeping(name)
        found = faults_of(schema, wanted, by_name=self._keeping.names(name))
        base = kept_for(name)
        if base is not None and self._carries(base) and self._keeping.keeping(base).history:
            found.append(f"{name}: the history of {base} has this name in raw")
        return found

    def masks(self, table: str, columns: Iterable[str]) -> dict[str, Mask]:
        """The masks of columns of these names."""
        if not self._rules or not self._carries(table):
            return {}
        return {
            name: replace(mask, key=self._key) if mask.kind == HASH else mask
            for name, mask in self._rules.masks(table, columns).items()
        }

    def differs(self, schema: TableSchema) -> bool:
        """Has the schema other masks than the rules give it, or is something else kept of it?"""
        return self.masks_differ(schema) or self.keeping_differs(schema)

    def keeping_differs(self, schema: TableSchema) -> bool:
        """Do the rules keep something else of the table?"""
        return self._carries(schema.name) and self.keeping(schema) != keeping_of(schema)

    def masks_differ(self, schema: TableSchema) -> bool:
        """Has the schema other masks than the rules give it?"""
        if not self._carries(schema.name):
            return False
        return self.masks(schema.name, [c.name for c in schema.columns]) != masks_of(schema)

    def _masked(self, schema: TableSchema) -> TableSchema:
        masks = self.masks(schema.name, [c.name for c in schema.columns])
        if not masks and not masks_of(schema):
            return schema
        columns = tuple(
            MaskedColumn(c.name, c.type, c.nullable, c.key_position, masks[c.name])
            if c.name in masks
            else bare(c)
            for c in schema.columns
        )
        return replace(schema, columns=columns)

    def faults(self, schema: TableSchema) -> list[str]:
        """What is wrong with the rules for this table."""
        masks = self.masks(schema.name, [c.name for c in schema.columns])
        if not masks:
            return []
        columns = {column.name: column for column in schema.columns}
        found = [
            f"{schema.name}.{name}: {fault}"
            for name, mask in masks.items()
            if (fault := _fault(columns[name], mask))
        ]
        if len(masks) == len(columns) and all(mask.kind == DROP for mask in masks.values()):
            found.append(f"{schema.name}: no column would be left; exclude the table instead")
        return found

    def idle(self, schemas: Collection[TableSchema]) -> list[str]:
        """Rules of tables.toml that match no column, or no table, there is."""
        names = {s.name: [c.name for c in s.columns] for s in schemas if self._carries(s.name)}
        return [*map(str, self._rules.idle(names)), *self._keeping.idle(list(names))]


def masker_of(settings: Settings, rules: TableRules) -> Masker:
    """The rules with the settings' key."""
    key = settings.loader.privacy_key
    return Masker(rules, key.get_secret_value() if key is not None else None)


def _cannot(faults: list[str]) -> ConfigError:
    count = "1 column" if len(faults) == 1 else f"{len(faults)} columns"
    return ConfigError(
        "\n".join(
            [f"tables.toml: {count} cannot be masked like that:", *(f"  - {f}" for f in faults)]
        ),
        'Give these columns another mask in [mask.<table>], or "keep"; the last rule that matches'
        " holds. Nothing of these tables was written.",
        tuple(faults),
    )


def _cannot_keep(faults: list[str]) -> ConfigError:
    told = "".join(f"\n  - {fault}" for fault in faults)
    return ConfigError(
        f"tables.toml: of these tables nothing more can be kept than the source has:{told}",
        'Behind the rule that asks for it say [table.<table>] deletes = "hard", history = false,'
        " or exclude the table. Nothing of these tables was written.",
        tuple(faults),
    )


def _fault(column: Column, mask: Mask) -> str | None:
    """Why a column cannot take a mask; None where it can."""
    base, kind = column.type.base, mask.kind
    if column.key_position is not None and kind != HASH:
        return f'"{kind}" on a column of its key, which must tell rows apart; "hash" does'
    if kind == HASH and base == "json":
        return '"hash" of a document, which has many spellings; "redact" or "drop" it'
    if kind == YEAR and base not in DATES | {"year"}:
        return f'"year" of a {base}, which is no date'
    if kind == PREFIX and not (base in TEXTS and column.type.charset):
        return f'"prefix" of a {base}, which is no text'
    return None


# --- values ------------------------------------------------------------------------------------


def reading(column: Column, read: Reader) -> Reader | None:
    """The reader of a row image's column under its mask; None where it is stepped over."""
    mask = mask_of(column)
    if mask is None:
        return read
    if mask.kind == DROP:
        return None
    return partial(masked_reader, _applied(column, mask), read)


def masked_reader(
    apply: Apply, read: Reader, data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    """`read` under a mask; the kernel knows it and does by itself what `read` does."""
    own: Faults = []
    value, at = read(data, at, own)
    return apply(value, own, faults), at


def converting(column: Column, convert: TextOf) -> TextOf:
    """The converter of a SELECT's column under its mask."""
    mask = mask_of(column)
    if mask is None:
        return convert
    return partial(masked_converter, _applied(column, mask), convert)


def masked_converter(apply: Apply, convert: TextOf, data: bytes, faults: Faults) -> bytes | None:
    """`convert` under a mask; the compiled reader of copies knows it as the kernel does."""
    own: Faults = []
    return apply(convert(data, own), own, faults)


def _applied(column: Column, mask: Mask) -> Apply:
    if mask.kind == HASH:
        return _keyring.hasher(mask.key)
    if mask.kind == REDACT:
        return redacted if is_text(column) else nothing
    if mask.kind == YEAR:
        return _yearly(column, mask.since)
    return _beginning(mask.length, mask.zeroed)


def is_text(column: Column) -> bool:
    """Is the column text in `raw`?"""
    return column.type.base in TEXTS and bool(column.type.charset)


def nothing(_value: bytes | None, _own: Faults, _faults: Faults) -> None:
    """What is no text is redacted to NULL."""


def redacted(value: bytes | None, own: Faults, _faults: Faults) -> bytes:
    """That a text was empty is kept; what cannot be held was not empty."""
    return b"" if value == b"" and not own else REDACTED


def _without_original(own: Faults) -> Faults:
    return [ValueFault(fault.column, b"", fault.reason) for fault in own]


def _yearly(column: Column, since: int) -> Apply:
    base, fsp = column.type.base, column.type.fsp
    fraction = "." + "0" * fsp if fsp else ""
    ending = {
        "date": "-01-01",
        "datetime": f"-01-01 00:00:00{fraction}",
        "timestamp": f"-01-01 00:00:00{fraction}+00",
    }.get(base, "")

    def apply(value: bytes | None, own: Faults, faults: Faults) -> bytes | None:
        faults += _without_original(own)
        if value is None:
            return None
        year = int(value[:4]) if ending else int(value)
        if 1 < year < since:  # the year 1 is OpenDental's word for none
            year = since
        return (f"{year:04d}{ending}" if ending else str(year)).encode()

    return apply


def _beginning(length: int, zeroed: tuple[str, ...]) -> Apply:
    def apply(value: bytes | None, own: Faults, faults: Faults) -> bytes | None:
        faults += _without_original(own)
        if value is None:
            return None
        text = (unescaped(value) or b"").decode()[:length]
        return escaped(("0" * length if text in zeroed else text).encode())

    return apply


class _Keyring:
    """Keys by fingerprint, for as long as the process lives."""

    def __init__(self) -> None:
        self._hashers: dict[str, _Hasher] = {}

    def add(self, key: str) -> str:
        """Take a key in; its fingerprint, which tells nothing about it."""
        hasher = _Hasher(key.encode())
        self._hashers[hasher.fingerprint] = hasher
        return hasher.fingerprint

    def hasher(self, fingerprint: str) -> Apply:
        """What hashes with a key that was taken in."""
        return self._hashers[fingerprint].apply


class _Hasher:
    """HMAC-SHA-256 of a value's text, as 64 hex digits; NULL and the empty text stay.

    What is hashed has nothing of table, column or type in it: the number 5 and the text 5 are
    the same in every table, so that columns that could be joined still can. A value that
    PostgreSQL cannot hold has a hash all the same, of its original bytes behind a NUL, with
    which no other value begins.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @cached_property
    def fingerprint(self) -> str:
        return self.digest(b"\0\0fingerprint")[:16]

    def digest(self, value: bytes) -> str:
        return hmac.digest(self._key, value, "sha256").hex()

    def apply(self, value: bytes | None, own: Faults, _faults: Faults) -> bytes | None:
        if own:
            return self.digest(b"\0" + own[0].original).encode()
        if not value:
            return value
        return self.digest(unescaped(value) or b"").encode()


_keyring = _Keyring()
