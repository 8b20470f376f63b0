"""A MySQL character set's name in, a strict decoder from its bytes to text out. Pure.

The servers' own tables are the measure, not Python's codecs of a similar name:
MySQL's latin1 is cp1252 with the five unused bytes standing for C1 controls, and
its ucs2 has no surrogates. Where a codec of Python's differs from the server's
table, the differing bytes are patched here. A set that is not listed has no decoder:
its values are kept as exceptions rather than guessed.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

Decoder = Callable[[bytes], str]
"""Raises UnicodeDecodeError for bytes that are not valid in the set."""

_WHOLE_UNICODE = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "ascii": "ascii",
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
}
_MULTIBYTE = {
    "big5": "big5",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "sjis": "shift_jis",
    "cp932": "cp932",
    "ujis": "euc_jp",
    "eucjpms": "euc_jp",
    "euckr": "euc_kr",
}
_SINGLE_BYTE = {
    "latin1": "cp1252",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "greek": "iso8859_7",
    "hebrew": "iso8859_8",
    "hp8": "hp_roman8",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "macce": "mac_latin2",
    "macroman": "mac_roman",
    "tis620": "tis_620",
}
SINGLE_BYTE_SETS = tuple(_SINGLE_BYTE)
_UNDEFINED = "\ufffe"
_PATCHES: dict[str, dict[int, str]] = {
    "latin1": {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)},
    "cp1256": dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), _UNDEFINED),
    "cp866": {0xFC: "\u207f", 0xFD: "\u00b2"},
    "greek": {0xA1: "\u02bd", 0xA2: "\u02bc"} | dict.fromkeys((0xA4, 0xA5, 0xAA), _UNDEFINED),
    "hebrew": {0xAF: "\u203e"},
    "koi8u": {0x95: "\u2022"},
}


def decoder(charset: str) -> Decoder | None:
    """The strict decoder of `charset`, or None where there is no trustworthy one."""
    if charset in _WHOLE_UNICODE:
        return _python_codec(_WHOLE_UNICODE[charset])
    if charset in _SINGLE_BYTE:
        return _table_decoder(charset)
    if charset in _MULTIBYTE:
        return _python_codec(_MULTIBYTE[charset])
    return None


def is_utf8(charset: str) -> bool:
    """May valid bytes of this set be handed to PostgreSQL as they are?"""
    return charset in ("utf8", "utf8mb3", "utf8mb4", "ascii")


def _python_codec(name: str) -> Decoder:
    decode = codecs.lookup(name).decode
    return lambda data: decode(data, "strict")[0]


def single_byte_table(charset: str) -> str:
    """The 256 characters of a single-byte set; U+FFFE where a byte has none."""
    decode = codecs.lookup(_SINGLE_BYTE[charset]).decode
    table = []
    for byte in range(256):
        try:
            table.append(decode(bytes([byte]), "strict")[0])
        except UnicodeDecodeError:
            table.append(_UNDEFINED)
    for byte, character in _PATCHES.get(charset, {}).items():
        table[byte] = character
    return "".join(table)


def _table_decoder(charset: str) -> Decoder:
    table = single_byte_table(charset)
    return lambda data: codecs.charmap_decode(data, "strict", table)[0]
