"""Character sets by the numbers that the binlog uses for their collations.

From the left comes a collation's id out of an event; to the right go the name
of its character set and a lossless way between bytes and text. The ids are
fixed by the servers (`information_schema.COLLATIONS`, MariaDB 10.11 and 11.8,
MySQL 9.7); MariaDB's NO PAD twins are the old id plus 1024, its UCA 14.0.0
collations fill a block of 256 for each Unicode character set.
"""

from __future__ import annotations

from typing import Final

from config.errors import UnsupportedStatement

_IDS: Final[dict[str, str]] = {
    "armscii8": "32 64",
    "ascii": "11 65",
    "big5": "1 84",
    "binary": "63",
    "cp1250": "26 34 44 66 99",
    "cp1251": "14 23 50 51 52",
    "cp1256": "57 67",
    "cp1257": "29 58 59",
    "cp850": "4 80",
    "cp852": "40 81",
    "cp866": "36 68",
    "cp932": "95 96",
    "dec8": "3 69",
    "eucjpms": "97 98",
    "euckr": "19 85",
    "gb18030": "248-250",
    "gb2312": "24 86",
    "gbk": "28 87",
    "geostd8": "92 93",
    "greek": "25 70",
    "hebrew": "16 71",
    "hp8": "6 72",
    "keybcs2": "37 73",
    "koi8r": "7 74",
    "koi8u": "22 75",
    "latin1": "5 8 15 31 47-49 94",
    "latin2": "2 9 21 27 77",
    "latin5": "30 78",
    "latin7": "20 41 42 79",
    "macce": "38 43",
    "macroman": "39 53",
    "sjis": "13 88",
    "swe7": "10 82",
    "tis620": "18 89",
    "ucs2": "35 90 128-151 159 640-642 2560-2815",
    "ujis": "12 91",
    "utf16": "54 55 101-124 672-674 2816-3071",
    "utf16le": "56 62",
    "utf32": "60 61 160-183 736-738 3072-3327",
    "utf8mb3": "33 76 83 192-215 223 576-579 2048-2303",
    "utf8mb4": "45 46 224-247 255-323 608-611 2304-2559",
}
_NO_PAD: Final = 1024
_NO_PAD_END: Final = 2048

# MySQL's charset → Python's codec, where text in it is not plainly ASCII with 8 bits.
_CODECS: Final[dict[str, str]] = {
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "big5": "big5",
    "cp932": "cp932",
    "eucjpms": "euc_jp",
    "euckr": "cp949",
    "gb18030": "gb18030",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "sjis": "cp932",
    "ujis": "euc_jp",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "greek": "iso8859_7",
    "hebrew": "iso8859_8",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "macce": "mac_latin2",
    "macroman": "mac_roman",
    "tis620": "tis_620",
}

# latin1 is Windows' cp1252, with C1 controls where cp1252 has holes.
_LATIN1: Final = {
    byte: bytes([byte]).decode("cp1252")
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_LATIN1_BACK: Final = {ord(character): byte for byte, character in _LATIN1.items()}


def _expand() -> dict[int, str]:
    found: dict[int, str] = {}
    for charset, ranges in _IDS.items():
        for part in ranges.split():
            low, _, high = part.partition("-")
            found.update(dict.fromkeys(range(int(low), int(high or low) + 1), charset))
    return found


_CHARSETS: Final = _expand()


def charset_of(collation_id: int) -> str | None:
    """The name of the character set that a collation belongs to; None if we do not know it."""
    if collation_id in _CHARSETS:
        return _CHARSETS[collation_id]
    if _NO_PAD < collation_id < _NO_PAD_END:
        return _CHARSETS.get(collation_id - _NO_PAD)
    return None


def decode_text(raw: bytes, charset: str) -> str:
    """`raw` as text. What is no text in that charset becomes surrogates and comes back as it was.

    Raises UnsupportedStatement if the way back would not give the same bytes.
    """
    text = _decode(raw, charset)
    if encode_text(text, charset) != raw:
        raise UnsupportedStatement(
            f"a statement in character set {charset} holds bytes that cannot be kept exactly",
            "Run the same change again on the source from a client that uses utf8mb4, "
            "then pass this one with a full copy: replicator resync --all",
        )
    return text


def _decode(raw: bytes, charset: str) -> str:
    if charset in _CODECS:
        return raw.decode(_CODECS[charset], "surrogateescape")
    text = raw.decode("latin-1")
    return text.translate(_LATIN1) if charset == "latin1" else text


def encode_text(text: str, charset: str) -> bytes:
    """The inverse of `decode_text`; raises UnsupportedStatement for what the charset lacks."""
    try:
        if charset in _CODECS:
            return text.encode(_CODECS[charset], "surrogateescape")
        narrow = text.translate(_LATIN1_BACK) if charset == "latin1" else text
        return narrow.encode("latin-1")
    except UnicodeEncodeError:
        raise UnsupportedStatement(
            f"a name cannot be written in character set {charset}, which the statement is in",
            "Name the replica's database in plain ASCII.",
        ) from None
