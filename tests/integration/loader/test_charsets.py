"""Our decoders against the server's own tables of characters."""

from __future__ import annotations

from contextlib import closing

import pytest

from loader import charsets
from replicator.sandbox.servers import BinlogServer


@pytest.mark.parametrize("name", charsets.SINGLE_BYTE_SETS)
def test_every_byte_means_what_the_server_says(replica_server: BinlogServer, name: str) -> None:
    decode = charsets.decoder(name)
    assert decode is not None
    with closing(replica_server.connect()) as connection, connection.cursor() as cursor:
        for byte in range(256):
            cursor.execute(
                f"SELECT HEX(CONVERT(CONVERT(UNHEX(%s) USING {name}) USING utf16))",
                (f"{byte:02x}",),
            )
            row = cursor.fetchone()
            assert row is not None
            # Where its table has nothing the server writes a question mark or, for tis620, U+FFFD.
            server = bytes.fromhex(row[0]).decode("utf-16-be").replace("\ufffd", "?")
            try:
                ours = decode(bytes([byte]))
            except UnicodeDecodeError:
                ours = "?"
            assert (hex(byte), ours) == (hex(byte), server)
