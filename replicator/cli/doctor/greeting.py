"""Which server answers, asked before there is an account on it.

Left: a host and a port. Right: the version in the greeting that servers of the MySQL family
send to whoever connects (protocol 10, `Protocol::HandshakeV10` in MySQL's internals manual).
"""

from __future__ import annotations

import socket
from typing import Final

from config.settings import MySQLServer
from replicator.source import Identity

_PROTOCOL: Final = 10
_MOST: Final = 256
_OLD_PREFIX: Final = "5.5.5-"
"""MariaDB 10 says so first, for the sake of old clients."""


def greeted(server: MySQLServer) -> Identity | None:
    """The server's identity as far as its greeting tells; None where nobody greets."""
    try:
        with socket.create_connection((server.host, server.port), server.connect_timeout) as link:
            link.settimeout(server.connect_timeout)
            packet = link.recv(_MOST)
    except OSError:
        return None
    return told(packet)


def told(packet: bytes) -> Identity | None:
    """The identity in a greeting, or None where the packet is none. Pure."""
    version, end, _ = packet[5:].partition(b"\0")
    if len(packet) < 6 or packet[4] != _PROTOCOL or not end:
        return None
    return Identity(0, "", version.decode("ascii", "replace").removeprefix(_OLD_PREFIX))
