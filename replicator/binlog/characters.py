"""What a character set's bytes mean: its name in, a strict decoder from bytes to text out. Pure.

The servers' own tables are the measure, not Python's codecs of a similar name: MySQL's
latin1 is cp1252 with the five unused bytes standing for C1 controls, its ucs2 has no
surrogates, its euckr is cp949, and the two EUC sets for Japanese have places for users'
own characters. Where a codec differs from the server's table, the difference stands here.
Bytes for which the server has no character (it shows a question mark) are not valid, and
decode to nothing; where it has U+FFFD for them, so have we. A test of the loader's
(`test_charsets`) compares every byte and pair of bytes with the servers, set by set.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

Decoder = Callable[[bytes], str]
"""Raises UnicodeDecodeError for bytes that are not valid in the set."""

_WHOLE_UNICODE = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "ascii": "ascii",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
}
_UNDEFINED = "\ufffe"
_ARMENIAN = "".join(chr(capital) + chr(capital + 48) for capital in range(0x531, 0x557))

# A set's nearest codec, and by their first byte the runs of characters where it is another.
_SINGLE_BYTE: dict[str, tuple[str, dict[int, str]]] = {
    "armscii8": (
        "latin_1",
        {
            0xA1: "❁§։)(»«—.՝,-՟…՜՛՞",
            0xB2: _ARMENIAN + "’'",
        },
    ),
    "cp1250": ("cp1250", {}),
    "cp1251": ("cp1251", {}),
    "cp1256": (
        "cp1256",
        dict.fromkeys((138, 143, 152, 154, 159, 170, 192, 255), _UNDEFINED),
    ),
    "cp1257": ("cp1257", {}),
    "cp850": ("cp850", {}),
    "cp852": ("cp852", {}),
    "cp866": ("cp866", {0xFC: "ⁿ²"}),
    "dec8": (
        "latin_1",
        dict.fromkeys((164, 166, 180, 184, 190, 208, 222, 240, 254, 255), _UNDEFINED)
        | {0xA8: "¤", 0xAC: _UNDEFINED * 4, 0xD7: "Œ", 0xDD: "Ÿ", 0xF7: "œ", 0xFD: "ÿ"},
    ),
    "geostd8": (
        "latin_1",
        {
            0x80: "€\ufffe‚\ufffe„…†‡\ufffe‰\ufffe‹" + _UNDEFINED * 5,
            0x91: "‘’“”•–—\ufffe\ufffe\ufffe›" + _UNDEFINED * 4,
            0xC0: "აბგდევზჱთიკლმნჲოპჟრსტჳუფქღყშჩცძწჭხჴჯჰჵ" + _UNDEFINED * 23 + "№\ufffe\ufffe",
        },
    ),
    "greek": ("iso8859_7", {0xA1: "ʽʼ", 0xA4: _UNDEFINED * 2, 0xAA: _UNDEFINED}),
    "hebrew": ("iso8859_8", {0xAF: "‾"}),
    "hp8": ("hp_roman8", {}),
    "keybcs2": (
        "cp437",
        {0x80: "ČüéďäĎŤčěĚĹÍľĺÄÁÉžŽôöÓůÚýÖÜŠĽÝŘťáíóúňŇŮÔšřŕŔ"},
    ),
    "koi8r": ("koi8_r", {}),
    "koi8u": ("koi8_u", {0x95: "•"}),
    "latin1": ("cp1252", {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}),
    "latin2": ("iso8859_2", {}),
    "latin5": ("iso8859_9", {}),
    "latin7": ("iso8859_13", {}),
    "macce": ("mac_latin2", {}),
    "macroman": ("mac_roman", {}),
    "swe7": (
        "latin_1",
        {0x40: "É", 0x5B: "ÄÖÅÜ", 0x60: "é", 0x7B: "äöåü", 0x7F: _UNDEFINED * 129},
    ),
    "tis620": ("tis_620", {0xA0: "\ufffd", 0xDB: "\ufffd" * 4, 0xFC: "\ufffd" * 4}),
}
SINGLE_BYTE_SETS = tuple(_SINGLE_BYTE)


def decoder(charset: str) -> Decoder | None:
    """The strict decoder of `charset`, or None where there is no trustworthy one."""
    if charset in _WHOLE_UNICODE:
        return _python_codec(_WHOLE_UNICODE[charset])
    if charset in _SINGLE_BYTE:
        return _table_decoder(charset)
    return _MULTIBYTE.get(charset)


def single_byte_table(charset: str) -> str:
    """The 256 characters of a single-byte set; U+FFFE where a byte has none."""
    codec, runs = _SINGLE_BYTE[charset]
    decode = codecs.lookup(codec).decode
    table = []
    for byte in range(256):
        try:
            table.append(decode(bytes([byte]), "strict")[0])
        except UnicodeDecodeError:
            table.append(_UNDEFINED)
    for start, characters in runs.items():
        table[start : start + len(characters)] = characters
    return "".join(table)


def _python_codec(name: str) -> Decoder:
    decode = codecs.lookup(name).decode
    return lambda data: decode(data, "strict")[0]


def _table_decoder(charset: str) -> Decoder:
    table = single_byte_table(charset)
    return lambda data: codecs.charmap_decode(data, "strict", table)[0]


# --- sets of several bytes a character -----------------------------------------------------------


def _invalid(charset: str, data: bytes, reason: str) -> UnicodeDecodeError:
    return UnicodeDecodeError(charset, data, 0, len(data), reason)


def _corrected(
    charset: str, codec: str, *, never: str = "", instead: dict[str, str] | None = None,
    errors: str = "strict",
) -> Decoder:  # fmt: skip
    """Python's codec, but for characters that the server does not make, or makes otherwise.

    Sound where a character in `never` or `instead` comes from one sequence of bytes alone.
    """
    decode = codecs.lookup(codec).decode
    wrong = re.compile(f"[{never}]").search if never else None
    table = str.maketrans(instead or {})

    def decoded(data: bytes) -> str:
        text = decode(data, errors)[0]
        if wrong is not None and wrong(text):
            raise _invalid(charset, data, "the server has no such character")
        return text.translate(table) if table else text

    return decoded


def _big5(data: bytes) -> str:
    """Four characters stand twice in Python's table, where the server's has them once."""
    text = _BIG5(data)
    if not _BIG5_TWICE.search(text):
        return text
    pairs = re.findall(rb"[\x00-\x7f]|[\x80-\xff].", data, re.DOTALL)
    return "".join("\ufffd" if pair in _BIG5_NEVER else _BIG5(pair) for pair in pairs)


def _eucjpms(data: bytes) -> str:
    """A tilde of JIS X 0212 is a wide one here; 8F leads a character and is never within one."""
    return _EUCJPMS(data.replace(b"\x8f\xa2\xb7", b"\xa1\xc1"))


def _ucs2(data: bytes) -> str:
    """Two bytes a character, whatever they are: a surrogate is none, and no half of a pair."""
    text = data.decode("utf-16-be")
    if 2 * len(text) != len(data):
        raise _invalid("ucs2", data, "surrogates")
    return text


_Extension = dict[bytes, str]
"""What Python's codec does not know: the bytes of a character, and the character."""


def _added(name: str, more: _Extension) -> str:
    """An error handler for a codec that looks up what it fails on."""

    def handle(error: UnicodeError) -> tuple[str, int]:
        if isinstance(error, UnicodeDecodeError):
            for length in (2, 3):
                found = more.get(error.object[error.start : error.start + length])
                if found is not None:
                    return found, error.start + length
        raise error

    codecs.register_error(name, handle)
    return name


def _euc_rows(prefix: bytes, first_row: int, characters: str) -> _Extension:
    """Characters in EUC's order, 94 a row."""
    return {
        prefix + bytes([first_row + at // 94, 0xA1 + at % 94]): character
        for at, character in enumerate(characters)
        if character != _UNDEFINED
    }


_OWN = "".join(map(chr, range(0xE000, 0xE000 + 2 * 940)))
_USERS_OWN = _euc_rows(b"", 0xF5, _OWN[:940]) | _euc_rows(b"\x8f", 0xF5, _OWN[940:])

# Row 13, which NEC filled: cp932 has it too, in its own order of bytes.
_NEC = b"".join(bytes([0x87, low]) for low in (*range(0x40, 0x7F), *range(0x80, 0x9D)))
_NEC_ROW = "".join(
    _NEC[at : at + 2].decode("cp932", "replace")[:1] for at in range(0, len(_NEC), 2)
).replace("\ufffd", _UNDEFINED)
# What IBM had and JIS X 0212 lacks, from row 83, place 83 on: small and capital Roman numerals,
# five signs, and those of IBM's kanji (in cp932's order) that are nowhere else.
_IBM_KANJI = b"".join(
    bytes([high, low])
    for high in (0xFA, 0xFB, 0xFC)
    for low in (*range(0x40, 0x7F), *range(0x80, 0xFD))
    if (high, low) >= (0xFA, 0x5C) and (high, low) <= (0xFC, 0x4B)
).decode("cp932")


def _lacking_in_jis(character: str) -> bool:
    try:
        character.encode("euc_jp")
    except UnicodeEncodeError:
        return True
    return False


_IBM = "ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡" + "".join(filter(_lacking_in_jis, _IBM_KANJI))
_MICROSOFT = _euc_rows(b"", 0xAD, _NEC_ROW) | _euc_rows(b"\x8f", 0xF3, _UNDEFINED * 82 + _IBM)

_BIG5 = _corrected(
    "big5", "big5", instead=dict.fromkeys("╴￣ˍ", "\ufffd"),
    errors=_added("binlog.big5", {
        bytes([0xF9, 0xD6 + at]): character for at, character in enumerate("碁銹裏墻恒粧嫺")
    }),
)  # fmt: skip
_BIG5_TWICE = re.compile("[／＼十卅]")
_BIG5_NEVER = frozenset({b"\xa1\xfe", b"\xa2\x40", b"\xa2\xcc", b"\xa2\xce"})
_EUCJPMS = _corrected(
    "eucjpms", "euc_jp",
    instead=dict(zip("〜‖−¢£¬¦", "～∥－￠￡￢￤", strict=True)),
    errors=_added("binlog.eucjpms", _USERS_OWN | _MICROSOFT),
)  # fmt: skip
_MULTIBYTE: dict[str, Decoder] = {
    "ucs2": _ucs2,
    "big5": _big5,
    "cp932": _corrected("cp932", "cp932", never="\x80\uf8f0-\uf8f3"),
    "eucjpms": _eucjpms,
    "euckr": _python_codec("cp949"),
    "gb18030": _corrected("gb18030", "gb18030", instead={"\u1e3f": "\ue7c7", "\ue7c7": "\u1e3f"}),
    "gb2312": _python_codec("gb2312"),
    "gbk": _python_codec("gbk"),
    "sjis": _corrected("sjis", "shift_jis", instead={"＼": "\\"}),
    "ujis": _corrected(
        "ujis", "euc_jp", instead={"＼": "\\"}, errors=_added("binlog.ujis", _USERS_OWN)
    ),
}
