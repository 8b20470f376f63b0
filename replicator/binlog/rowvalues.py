"""A column's value from the text protocol's bytes to a row image's bytes.

From the left comes a catalog column; to the right go its binlog type code and
metadata, the SQL expression by which a source selects it without loss, and a
function from what that expression prints to what a row image holds. There is
one function per column, made once, so that encoding a row decides nothing.

Formats: MariaDB `sql/field.cc` (`Field_*::pack`, `binlog_type_info`),
`sql/compat56.cc` for temporal types; `decimals` and `jsonencoding` for theirs.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from config.connections import quote_mysql_identifier
from config.errors import CopyRefused, UnsupportedStatement
from replicator.binlog.catalog import CatalogColumn
from replicator.binlog.decimals import decimal_encoder
from replicator.binlog.jsonencoding import encode_selected, selected

Encoder = Callable[[bytes], bytes]

_CACHE_ROWS: Final = 1 << 12
_CACHE_DAYS: Final = 1 << 15
_PRINTED_BYTES: Final = 32
"""Longer keys are not worth remembering."""

_BYTE = [bytes([value]) for value in range(256)]
_TEXT_SIZES = {"tiny": 1, "": 2, "medium": 3, "long": 4}
_GEOMETRIES = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring",
     "multipolygon", "geometrycollection", "geomcollection"}
)  # fmt: skip
_INTEGERS = {
    "tinyint": (1, 1), "smallint": (2, 2), "mediumint": (9, 3), "int": (3, 4), "bigint": (8, 8),
}  # fmt: skip
_PACKED_INTEGERS = {1: "b", 2: "h", 4: "i", 8: "q"}


@dataclass(frozen=True, slots=True)
class Field:
    """How one column stands in a row image, and how to get there."""

    name: str
    type_code: int
    metadata: bytes
    nullable: bool
    expression: str
    encode: Encoder
    dimensions: int = 0
    """Of MySQL's VECTOR, which a replica compares; others have none."""


class Remembered(dict[bytes, bytes]):
    """An encoder that keeps its first answers: dates, fees and codes come back all the time."""

    def __init__(self, encode: Encoder, size: int = _CACHE_ROWS) -> None:
        super().__init__()
        self._encode = encode
        self._size = size

    def __missing__(self, printed: bytes) -> bytes:
        image = self._encode(printed)
        if len(self) < self._size and len(printed) <= _PRINTED_BYTES:
            self[printed] = image
        return image


def field_of(table: str, column: CatalogColumn) -> Field:
    """How `column` is stored; `CopyRefused` for a type that cannot be written as it is stored."""
    where = f"{table}.{column.name}"
    kind, quoted = column.data_type, quote_mysql_identifier(column.name)
    if column.old_temporal:
        raise CopyRefused(
            f"column {where} of the replica is in the temporal format of before MySQL 5.6",
            "On the replica: SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE … FORCE;",
        )
    expression = _expression(kind, quoted)
    for family in (_number, _temporal, _enumerated, _text, _other):
        made = family(kind, column)
        if made is not None:
            code, metadata, encode = made
            dimensions = (column.octets or 0) // 4 if column.vector_type else 0
            return Field(
                column.name, code, metadata, column.nullable, expression, encode, dimensions
            )
    raise UnsupportedStatement(
        f"column {where} has type {kind}, whose stored form cannot be copied yet",
        "Exclude the table in tables.toml.",
    )


_Made = tuple[int, bytes, Encoder] | None


def exact_float(quoted: str) -> str:
    """SQL that prints a FLOAT or DOUBLE without loss, the sign of a zero too.

    FLOAT by itself prints six digits; times one it is a double, free of DOUBLE(m,d)'s rounding.
    MariaDB may print no zero's sign, but the arc tangent has it. MySQL prints it, yet cuts
    digits off a double that an expression makes text of: there it must stay a number.
    """
    sign = f"/*M!100000 IF(ATAN2(*/ {quoted} /*M!100000 , -1) < 0, '-0', '0') */"
    return f"IF({quoted} = 0, {sign}, {quoted} * 1e0)"


def _expression(kind: str, quoted: str) -> str:
    """SQL that prints the column without loss.

    ENUM and SET by number are free of charsets. A TIMESTAMP's seconds are free of time zones.
    """
    if kind in ("float", "double"):
        return exact_float(quoted)
    if kind in ("enum", "set"):
        return f"CAST({quoted} AS UNSIGNED)"
    if kind == "timestamp":
        return f"UNIX_TIMESTAMP({quoted})"
    if kind == "json":
        return selected(quoted)
    return quoted


def _number(kind: str, column: CatalogColumn) -> _Made:
    if kind in _INTEGERS:
        code, width = _INTEGERS[kind]
        encode = integer_encoder(width, signed=not column.unsigned)
        return code, b"", Remembered(encode).__getitem__ if width < 3 else encode
    if kind in ("float", "double"):
        pack = struct.Struct("<f" if kind == "float" else "<d").pack
        code = 4 if kind == "float" else 5
        encode = Remembered(lambda printed: pack(float(printed))).__getitem__
        return code, _BYTE[4 if kind == "float" else 8], encode
    if kind == "decimal":
        precision, scale = column.precision or 0, column.scale or 0
        encode = Remembered(decimal_encoder(precision, scale)).__getitem__
        return 246, bytes([precision, scale]), encode
    if kind == "bit":
        bits = column.precision or 1
        return 16, bytes([bits % 8, bits // 8]), fixed_encoder((bits + 7) // 8)
    return None


def integer_encoder(width: int, *, signed: bool) -> Encoder:
    """Little-endian integers of `width` bytes."""
    if width == 3:
        return lambda printed: int(printed).to_bytes(3, "little", signed=signed)
    letter = _PACKED_INTEGERS[width]
    pack = struct.Struct("<" + (letter if signed else letter.upper())).pack
    return lambda printed: pack(int(printed))


def fixed_encoder(size: int) -> Encoder:
    """Bytes that are stored as they are printed, always `size` of them."""

    def encode(printed: bytes) -> bytes:
        if len(printed) != size:
            raise ValueError("another length than the column has")
        return printed

    return encode


def _temporal(kind: str, column: CatalogColumn) -> _Made:
    fsp = column.fsp
    if kind == "date":
        return 10, b"", _DATES
    if kind == "datetime":
        return 18, _BYTE[fsp], datetime_encoder(fsp)
    if kind == "timestamp":
        return 17, _BYTE[fsp], timestamp_encoder(fsp)
    if kind == "time":
        return 19, _BYTE[fsp], Remembered(time_encoder(fsp)).__getitem__
    if kind == "year":
        encode = _encode_short_year if column.short_year else _encode_year
        return 13, b"", Remembered(encode).__getitem__
    return None


def encode_date(printed: bytes) -> bytes:
    """YYYY-MM-DD, zeros and all: day, month and year in 5, 4 and 15 bits."""
    year, month, day = printed.split(b"-")
    return (int(day) | int(month) << 5 | int(year) << 9).to_bytes(3, "little")


def datetime_encoder(fsp: int) -> Encoder:
    """DATETIME2: year times 13 plus month (17 bits with the sign), day, time; the fraction."""
    fraction = _fraction_encoder(fsp)
    number = int.from_bytes
    top = 0x8000000000

    def encode(printed: bytes) -> bytes:
        packed = number(_DAYS(printed[:10]), "big") << 17 | number(_SECONDS(printed[11:19]), "big")
        return (packed | top).to_bytes(5, "big") + fraction(printed[20:])

    return encode if fsp else Remembered(encode).__getitem__


def _day_part(printed: bytes) -> bytes:
    year, month, day = printed.split(b"-")
    return ((int(year) * 13 + int(month)) << 5 | int(day)).to_bytes(3, "big")


def _seconds_part(printed: bytes) -> bytes:
    hours, minutes, seconds = printed.split(b":")
    return (int(hours) << 12 | int(minutes) << 6 | int(seconds)).to_bytes(3, "big")


# Shared by all columns: a practice knows about as many days as people live.
_DATES: Final = Remembered(encode_date, _CACHE_DAYS).__getitem__
_DAYS: Final = Remembered(_day_part, _CACHE_DAYS).__getitem__
_SECONDS: Final = Remembered(_seconds_part, _CACHE_DAYS).__getitem__


def _fraction_encoder(fsp: int) -> Encoder:
    """Digits behind the point as hundredths, ten-thousandths or millionths, big-endian."""
    size = (fsp + 1) // 2
    digits = 2 * size

    def encode(printed: bytes) -> bytes:
        return int(printed.ljust(digits, b"0") or b"0").to_bytes(size, "big")

    return encode


def timestamp_encoder(fsp: int) -> Encoder:
    """TIMESTAMP2 from seconds since 1970, printed with a fraction if the column has one."""
    pack = struct.Struct(">I").pack
    if not fsp:
        return lambda printed: pack(int(printed))
    fraction = _fraction_encoder(fsp)

    def encode(printed: bytes) -> bytes:
        seconds, _, digits = printed.partition(b".")
        return pack(int(seconds)) + fraction(digits[:fsp])

    return encode


def time_encoder(fsp: int) -> Encoder:
    """TIME2: hours, minutes, seconds and fraction as one number around 0x80000000…"""
    fraction = _fraction_encoder(fsp)
    size = (fsp + 1) // 2
    middle = 0x800000 << 8 * size

    def encode(printed: bytes) -> bytes:
        negative = printed[:1] == b"-"
        clock, _, digits = printed[negative:].partition(b".")
        packed = int.from_bytes(_seconds_part(clock) + fraction(digits), "big")
        return (middle - packed if negative else middle + packed).to_bytes(3 + size, "big")

    return encode


def _encode_year(printed: bytes) -> bytes:
    year = int(printed)
    return _BYTE[year - 1900] if year >= 1900 else _zero_year(year)


def _zero_year(year: int) -> bytes:
    if year:
        raise ValueError("not a year that MariaDB can store")
    return b"\0"


def _encode_short_year(printed: bytes) -> bytes:
    """YEAR(2) prints two digits: 70 to 69 are 1970 to 2069."""
    year = int(printed)
    return _BYTE[year if 70 <= year < 100 else year + 100]


def _enumerated(kind: str, column: CatalogColumn) -> _Made:
    count = len(column.members)
    if kind == "enum":
        size, code = (1 if count < 256 else 2), 247
    elif kind == "set":
        size, code = (count + 7) // 8, 248
        size = 8 if size > 4 else size
    else:
        return None
    encode = Remembered(lambda printed: int(printed).to_bytes(size, "little"))
    return 254, bytes([code, size]), encode.__getitem__


def _text(kind: str, column: CatalogColumn) -> _Made:
    octets = column.octets or 0
    if kind == "vector":
        if column.vector_type:
            return 242, _BYTE[4], blob_encoder(4)
        return 15, struct.pack("<H", octets), prefixed_encoder(octets)
    if kind in ("char", "binary"):
        first = 0xFE ^ (octets & 0x300) >> 4
        encode = prefixed_encoder(octets)
        if kind == "binary":
            return 254, bytes([first, octets]), lambda value: encode(value.rstrip(b"\0"))
        return 254, bytes([first, octets & 0xFF]), encode
    if kind in ("varchar", "varbinary"):
        if column.compressed:
            return 141, struct.pack("<H", octets + 1), _stored_plain(prefixed_encoder(octets + 1))
        return 15, struct.pack("<H", octets), prefixed_encoder(octets)
    for ending in ("text", "blob"):
        if kind.endswith(ending) and kind[: -len(ending)] in _TEXT_SIZES:
            size = _TEXT_SIZES[kind[: -len(ending)]]
            encode = blob_encoder(size)
            if column.compressed:
                return 140, _BYTE[size], _stored_plain(encode)
            return 252, _BYTE[size], encode
    return None


def prefixed_encoder(octets: int) -> Encoder:
    """At most `octets` bytes behind their length, which takes one byte or two."""
    if octets < 256:
        lengths = _BYTE[: octets + 1]
        return lambda value: lengths[len(value)] + value
    pack = struct.Struct("<H").pack

    def encode(value: bytes) -> bytes:
        if len(value) > octets:
            raise ValueError("longer than the column")
        return pack(len(value)) + value

    return encode


def blob_encoder(size: int) -> Encoder:
    """Bytes behind their length, which takes `size` bytes."""
    if size == 1:
        return prefixed_encoder(255)
    if size == 3:
        return lambda value: len(value).to_bytes(3, "little") + value
    pack = struct.Struct("<H" if size == 2 else "<I").pack
    return lambda value: pack(len(value)) + value


def _stored_plain(encode: Encoder) -> Encoder:
    """COMPRESSED columns: a leading zero byte says that what follows is not compressed."""
    return lambda value: encode(b"\0" + value if value else value)


def _other(kind: str, column: CatalogColumn) -> _Made:
    del column
    if kind in _GEOMETRIES:
        return 255, _BYTE[4], blob_encoder(4)
    if kind == "json":
        behind_length = blob_encoder(4)
        return 245, _BYTE[4], lambda printed: behind_length(encode_selected(printed))
    if kind == "uuid":
        return 254, b"\xfe\x10", _stored_short(lambda text: bytes.fromhex(text.replace("-", "")))
    if kind == "inet6":
        return 254, b"\xfe\x10", _stored_short(partial(socket.inet_pton, socket.AF_INET6))
    if kind == "inet4":
        return 254, b"\xfe\x04", _stored_short(partial(socket.inet_pton, socket.AF_INET))
    return None


def _stored_short(parse: Callable[[str], bytes]) -> Encoder:
    """Types that are BINARY underneath: as there, zeros at the end are left out."""

    def encode(printed: bytes) -> bytes:
        raw = parse(printed.decode("ascii")).rstrip(b"\0")
        return _BYTE[len(raw)] + raw

    return encode
