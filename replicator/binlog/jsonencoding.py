"""MySQL's JSON as it is selected, and back into the binary form that row images hold.

From the left come a column's name, and what the server prints for `selected` of it; to
the right go an SQL expression, and the bytes that the server itself would have stored.
Pure.

A document's text alone is not enough: 3 may be an INTEGER, an UNSIGNED INTEGER or a
DECIMAL, 1.5 a DECIMAL or a DOUBLE, "2020-01-02" a DATE or a string. So the server is asked
for the kind of every element beside the text, in the same expression and hence of the same
value: two lists, of all members of objects (`$**.*`) and of all cells of arrays (`$**[*]`),
a letter each. It walks in one fixed order, container by container from the outside in, a
container's own elements first; the encoder walks likewise and takes a letter for each
element. Text and letters must agree to the last, or the value is refused: so an answer cut
by group_concat_max_len, or a server that walks otherwise, is an error and never a wrong
document. An answer that would not fit into max_allowed_packet would be NULL with a warning;
it is the bare text instead, which has no letters and is refused too.

Kinds and text fix the value, and the value fixes the bytes but for two things that no
value depends on: how many leading zeros a DECIMAL element was stored with, and the holes
that partial updates leave. JSON_STORAGE_SIZE and JSON_STORAGE_FREE may tell them.

Format: MySQL `sql-common/json_binary.h`; the walk: `json_dom.cc`, `Json_wrapper::seek`.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from replicator.binlog.decimals import decimal_encoder

SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY, LITERAL = range(5)
INT16, UINT16, INT32, UINT32, INT64, UINT64, DOUBLE, STRING = range(5, 13)
OPAQUE: Final = 15
NULL, TRUE, FALSE = range(3)
DATE_FIELD, TIME_FIELD, DATETIME_FIELD, TIMESTAMP_FIELD, DECIMAL_FIELD = 10, 11, 12, 7, 246
"""Types of columns, as opaque elements name them."""

_KINDS: Final = {
    "OBJECT": "O", "ARRAY": "A", "NULL": "n", "BOOLEAN": "b", "INTEGER": "i",
    "UNSIGNED INTEGER": "u", "DOUBLE": "d", "DECIMAL": "c", "STRING": "s",
    "DATE": "D", "TIME": "T", "DATETIME": "M", "TIMESTAMP": "S",
}  # fmt: skip
_OTHER: Final = "o"
"""BLOB, BIT and whatever else prints as base64:type<number>:…"""
_SMALL_LIMIT: Final = 0xFFFF
_MARK: Final = b"@"


def selected(quoted: str) -> str:
    """SQL that prints a JSON column and the kinds of all its elements."""
    text = f"CAST({quoted} AS CHAR)"
    lists = ", ' ', ".join(_kinds_below(quoted, path) for path in ("$**.*", "$**[*]"))
    return f"COALESCE(CONCAT('@', {_kind(quoted)}, {lists}, ' ', {text}), {text})"


def _kinds_below(quoted: str, path: str) -> str:
    elements = f"JSON_TABLE({quoted}, '{path}' COLUMNS (_at FOR ORDINALITY, _it JSON PATH '$'))"
    listed = f"GROUP_CONCAT({_kind('_it')} ORDER BY _at SEPARATOR '')"
    return f"IFNULL((SELECT {listed} FROM {elements} AS _elements), '')"


def _kind(element: str) -> str:
    """One letter for an element; one that is null comes out of JSON_TABLE as NULL."""
    cases = " ".join(f"WHEN '{name}' THEN '{letter}'" for name, letter in _KINDS.items())
    return f"CASE IFNULL(JSON_TYPE({element}), 'NULL') {cases} ELSE '{_OTHER}' END"


def encode_selected(printed: bytes) -> bytes:
    """The stored form of what `selected` printed; `ValueError` where it is not whole."""
    members, _, rest = printed.partition(b" ")
    cells, _, text = rest.partition(b" ")
    if len(members) < 2 or members[:1] != _MARK:
        raise ValueError("a document without its elements' kinds")
    document = _PARSER.decode(text.decode())
    walk = _Walk(members[2:].decode("ascii"), cells.decode("ascii"))
    code, stored = walk.element(document, chr(members[1]))
    walk.finish()
    return bytes([code]) + stored


class _Number(str):
    """A number as it is printed."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object's members in the server's order."""

    __slots__ = ()


_PARSER: Final = json.JSONDecoder(object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number)

_Stored = tuple[int, bytes]
"""An element's type code and its bytes."""


class _Walk:
    """Takes the kinds of one document's elements in the order in which they were listed."""

    def __init__(self, members: str, cells: str) -> None:
        self._members = iter(members)
        self._cells = iter(cells)

    def finish(self) -> None:
        """All kinds must have been taken."""
        if next(self._members, "") or next(self._cells, ""):
            raise ValueError("more kinds than elements")

    def element(self, value: Any, kind: str) -> _Stored:
        if kind == "O" and isinstance(value, _Object):
            children = self._elements([item for _, item in value], self._members)
            return _container([key.encode() for key, _ in value], children)
        if kind == "A" and type(value) is list:
            return _container(None, self._elements(value, self._cells))
        encode = _SCALARS.get((type(value), kind))
        if encode is None:
            raise ValueError("an element of another kind than its text")
        return encode(value)

    def _elements(self, values: list[Any], kinds: Iterator[str]) -> list[_Stored]:
        own = list(islice(kinds, len(values)))
        return [self.element(value, kind) for value, kind in zip(values, own, strict=True)]


# --- containers --------------------------------------------------------------------------


def _container(keys: list[bytes] | None, children: list[_Stored]) -> _Stored:
    """An object, or an array where there are no keys: with short offsets if they reach."""
    small, large = (SMALL_ARRAY, LARGE_ARRAY) if keys is None else (SMALL_OBJECT, LARGE_OBJECT)
    if len(children) <= _SMALL_LIMIT:
        stored = _laid_out(keys, children, 2)
        if len(stored) <= _SMALL_LIMIT:
            return small, stored
    return large, _laid_out(keys, children, 4)


def _laid_out(keys: list[bytes] | None, children: list[_Stored], wide: int) -> bytes:
    """Count, size, where the keys are, where the values are; then the keys, then the values.

    A value that fits into its offset's place stands there. Offsets count from the count, and
    those of a small container that becomes too large do not matter: it is laid out anew.
    """
    end = 2 * wide + len(children) * (1 + wide)
    head, heap = [], []
    if keys is not None:
        end += len(keys) * (wide + 2)
        for key in keys:
            head.append(_offset(end, wide) + len(key).to_bytes(2, "little"))
            end += len(key)
        heap += keys
    for code, stored in children:
        if code in _INLINED[wide]:
            head.append(bytes([code]) + stored.ljust(wide, _sign(code, stored)))
        else:
            head.append(bytes([code]) + _offset(end, wide))
            heap.append(stored)
            end += len(stored)
    return b"".join([_offset(len(children), wide), _offset(end, wide), *head, *heap])


_INLINED: Final = {
    2: frozenset({LITERAL, INT16, UINT16}),
    4: frozenset({LITERAL, INT16, UINT16, INT32, UINT32}),
}


def _sign(code: int, stored: bytes) -> bytes:
    """What fills an inlined value's place behind it: its sign, as the server writes it."""
    return b"\xff" if code == INT16 and stored[-1] & 0x80 else b"\0"


def _offset(value: int, wide: int) -> bytes:
    return (value & (1 << 8 * wide) - 1).to_bytes(wide, "little")


# --- scalars -----------------------------------------------------------------------------


def _literal(value: bool | None) -> _Stored:
    which = NULL if value is None else TRUE if value else FALSE
    return LITERAL, bytes([which])


def _integer(printed: str) -> _Stored:
    number = int(printed)
    if -0x8000 <= number <= 0x7FFF:
        return INT16, number.to_bytes(2, "little", signed=True)
    if -0x80000000 <= number <= 0x7FFFFFFF:
        return INT32, number.to_bytes(4, "little", signed=True)
    return INT64, _number(number, signed=True)


def _unsigned(printed: str) -> _Stored:
    number = int(printed)
    if 0 <= number <= 0xFFFF:
        return UINT16, number.to_bytes(2, "little")
    if 0 <= number <= 0xFFFFFFFF:
        return UINT32, number.to_bytes(4, "little")
    return UINT64, _number(number, signed=False)


def _number(number: int, *, signed: bool) -> bytes:
    try:
        return number.to_bytes(8, "little", signed=signed)
    except OverflowError:
        raise ValueError("an integer of more than 64 bits") from None


def _double(printed: str) -> _Stored:
    return DOUBLE, struct.pack("<d", float(printed))


def _decimal(printed: str) -> _Stored:
    whole, _, fraction = printed.lstrip("-").partition(".")
    precision, scale = len(whole) + len(fraction), len(fraction)
    if not 0 < precision <= 81:
        raise ValueError("a decimal of more digits than there are")
    encode = _decimals(precision, scale)
    return _opaque(DECIMAL_FIELD, bytes([precision, scale]) + encode(printed.encode("ascii")))


_decimals = lru_cache(maxsize=256)(decimal_encoder)


def _string(value: str) -> _Stored:
    return STRING, _measured(value.encode())


def _date(printed: str) -> _Stored:
    return _opaque(DATE_FIELD, _moment(_days(printed) << 17, 0, negative=False))


def _datetime(printed: str) -> _Stored:
    return _opaque(DATETIME_FIELD, _day_and_time(printed))


def _timestamp(printed: str) -> _Stored:
    return _opaque(TIMESTAMP_FIELD, _day_and_time(printed))


def _time(printed: str) -> _Stored:
    seconds, micros = _seconds(printed.lstrip("-"))
    return _opaque(TIME_FIELD, _moment(seconds, micros, negative=printed[:1] == "-"))


def _day_and_time(printed: str) -> bytes:
    day, _, clock = printed.partition(" ")
    seconds, micros = _seconds(clock)
    return _moment(_days(day) << 17 | seconds, micros, negative=False)


def _days(printed: str) -> int:
    year, month, day = printed.split("-")
    return (int(year) * 13 + int(month)) << 5 | int(day)


def _seconds(printed: str) -> tuple[int, int]:
    clock, _, fraction = printed.partition(".")
    hours, minutes, seconds = clock.split(":")
    return int(hours) << 12 | int(minutes) << 6 | int(seconds), int(fraction.ljust(6, "0"))


def _moment(packed: int, micros: int, *, negative: bool) -> bytes:
    number = packed << 24 | micros
    return _number(-number if negative else number, signed=True)


def _printed_opaque(printed: str) -> _Stored:
    """base64:type<field type>:<bytes, in lines>"""
    prefix, kind, data = printed.split(":", 2)
    if prefix != "base64" or kind[:4] != "type" or not 0 <= int(kind[4:]) <= 0xFF:
        raise ValueError("not an opaque element")
    return _opaque(int(kind[4:]), base64.b64decode(data.replace("\n", ""), validate=True))


def _opaque(field: int, data: bytes) -> _Stored:
    return OPAQUE, bytes([field]) + _measured(data)


def _measured(data: bytes) -> bytes:
    """Bytes behind their length: seven bits a byte, the last without the eighth."""
    length, front = len(data), bytearray()
    while length > 0x7F:
        front.append(length & 0x7F | 0x80)
        length >>= 7
    front.append(length)
    return bytes(front) + data


_SCALARS: Final[dict[tuple[type, str], Callable[[Any], _Stored]]] = {
    (type(None), "n"): _literal,
    (bool, "b"): _literal,
    (_Number, "i"): _integer,
    (_Number, "u"): _unsigned,
    (_Number, "d"): _double,
    (_Number, "c"): _decimal,
    (str, "s"): _string,
    (str, "D"): _date,
    (str, "T"): _time,
    (str, "M"): _datetime,
    (str, "S"): _timestamp,
    (str, _OTHER): _printed_opaque,
}
