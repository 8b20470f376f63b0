"""Our decoders against the server's own tables of characters: every byte, every pair of bytes.

What the server has no character for (its conversion gives a question mark, or it does not take
the bytes at all) must decode to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loader import charsets
from replicator.sandbox.databases import MySQLDatabase

WHOLE_UNICODE = {"ascii", "utf8mb3", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32", "binary"}
HALVES, TRAILS = range(0x80, 0x100), range(0x100)
AT_ONCE = 4000


def test_there_is_a_decoder_for_every_charset_of_the_server(replica_db: MySQLDatabase) -> None:
    names = {row[0] for row in replica_db.query("SHOW CHARACTER SET")} - {"binary"}
    assert {name for name in names if charsets.decoder(name) is None} == set()


def _sequences(charset: str) -> Iterator[bytes]:
    yield from (bytes([byte]) for byte in TRAILS)
    if charset in charsets.SINGLE_BYTE_SETS:
        return
    yield from (bytes([lead, trail]) for lead in HALVES for trail in TRAILS)
    if charset in ("ujis", "eucjpms"):
        yield from (bytes([0x8F, high, low]) for high in HALVES for low in HALVES)
    if charset == "gb18030":  # the basic plane, and the edges of what lies beyond
        digits, leads = range(0x30, 0x3A), (0x81, 0x82, 0x83, 0x84, 0x8F, 0x90, 0xE3, 0xE4, 0xFE)
        for lead in leads:
            for second in digits:
                for third in range(0x81, 0xFF):
                    yield from (bytes([lead, second, third, last]) for last in digits)


def test_every_sequence_of_bytes_means_what_the_server_says(replica_db: MySQLDatabase) -> None:
    names = {row[0] for row in replica_db.query("SHOW CHARACTER SET")} - WHOLE_UNICODE
    assert names >= set(charsets.SINGLE_BYTE_SETS)
    replica_db.execute("CREATE TEMPORARY TABLE s (n int PRIMARY KEY, b varbinary(4))")
    for name in sorted(names):
        sequences = list(_sequences(name))
        for at in range(0, len(sequences), AT_ONCE):
            _compare(replica_db, name, sequences[at : at + AT_ONCE])


def _compare(database: MySQLDatabase, charset: str, sequences: list[bytes]) -> None:
    decode = charsets.decoder(charset)
    assert decode is not None
    values = ", ".join(f"({n}, X'{one.hex()}')" for n, one in enumerate(sequences))
    database.execute("DELETE FROM s")
    database.execute(f"INSERT INTO s VALUES {values}")
    taken = f"CONVERT(b USING {charset})"
    rows = database.query(
        f"SELECT HEX({taken}), HEX(CONVERT({taken} USING utf32)) FROM s ORDER BY n"
    )
    for sequence, (kept, utf32) in zip(sequences, rows, strict=True):
        server = bytes.fromhex(utf32 or "").decode("utf-32-be", "surrogatepass")
        whole = kept == sequence.hex().upper()
        if not whole or server.count("?") != sequence.count(b"?"):
            server = ""
        try:
            ours = decode(sequence)
        except UnicodeDecodeError:
            ours = ""
        assert (charset, sequence.hex(), ours) == (charset, sequence.hex(), server)


@pytest.mark.parametrize(
    ("charset", "invalid"),
    [
        ("ucs2", "D83D"), ("ucs2", "D83DDE00"), ("ucs2", "61"), ("utf16", "D83D"),
        ("utf16", "DE00D83D"), ("utf16le", "3DD8"), ("utf32", "0000D800"), ("utf32", "00110000"),
        ("utf8mb3", "EDA0BD"), ("utf8mb4", "C080"), ("utf8mb4", "F4908080"), ("utf8mb4", "C3"),
        ("sjis", "81"), ("gbk", "81"), ("eucjpms", "8FA2"), ("gb18030", "8130"), ("big5", "A1"),
    ],
)  # fmt: skip
def test_halves_of_characters_decode_to_nothing(charset: str, invalid: str) -> None:
    decode = charsets.decoder(charset)
    assert decode is not None
    with pytest.raises(UnicodeDecodeError):
        decode(bytes.fromhex(invalid))
