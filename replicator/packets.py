"""Events that the replica is to apply, as commands that it can take in.

Left: events of one statement, and a connection on which nothing is on its way. Right: the same
events applied; or an error that names the table and the remedy, where a row is larger than the
server's `max_allowed_packet` lets anything be. Without that look beforehand the server would hang
up in the middle of the packet, as it does when it dies, and the row would be sent again for ever.

MariaDB takes events by two variables, so that they may be longer than one packet (`delivery`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

from config.errors import ConfigError
from replicator.delivery import Command, Delivery
from replicator.tracking import execute_command, fetch

_LARGEST: Final = 1 << 30
"""No server lets max_allowed_packet be larger."""

_SURELY: Final = 64 << 10
"""What every server takes that anybody uses: nobody need be asked."""

_limits: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_deliveries: WeakKeyDictionary[Any, Delivery] = WeakKeyDictionary()


def packet_limit(connection: Any) -> int:
    """The session's `max_allowed_packet`, which stays what it was when the session began."""
    limit = _limits.get(connection)
    if limit is None:
        limit = _limits[connection] = int(fetch(connection, "SELECT @@max_allowed_packet")[0][0])
    return limit


def fits(connection: Any, size: int) -> bool:
    """Can a command of so many bytes be sent?"""
    return size + 1 < packet_limit(connection)


def require_fits(connection: Any, commands: Iterable[Command], tables: Iterable[str]) -> None:
    """`ConfigError` where one of the commands, which write rows of `tables`, cannot be sent."""
    largest = max((len(payload) for _number, payload in commands), default=0)
    if largest < _SURELY or fits(connection, largest):
        return
    names = ", ".join(sorted(tables)) or "the replica"
    message = (
        f"a row of {names} takes {largest:,} bytes in one packet, and the replica's"
        f" max_allowed_packet is {packet_limit(connection):,}"
    )
    if largest + 1 >= _LARGEST:
        raise ConfigError(message, "No server takes such a row: exclude the table in tables.toml.")
    raise ConfigError(
        message,
        "On the replica: SET GLOBAL max_allowed_packet = 1073741824; and in its my.cnf, section"
        " [mysqld]: max_allowed_packet=1G. Then start again.",
    )


def execute_events(connection: Any, events: bytes, table: str) -> None:
    """Apply events that change `table`, in as many commands as they need."""
    delivery = _deliveries.get(connection)
    if delivery is None:
        delivery = _deliveries[connection] = Delivery(connection)
    commands = delivery.commands(events)
    require_fits(connection, commands, [table])
    for number, payload in commands:
        execute_command(connection, number, payload)
