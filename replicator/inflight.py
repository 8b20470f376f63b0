"""Batches that a server has been sent and has not answered yet, on one connection.

Left: a batch's commands. Right: its answer, in the order of sending, with what its sender
wants to remember of it. A server executes what waits in its socket one by one, so while
it works on one batch the next can be on its way: it never idles for a round trip.

Whoever sends a second batch before the first is answered must bear that the first fails
and the second is executed all the same. A batch that ends by moving the offset row bears
it (see `exact`); nothing else may be sent so. When one fails, the answers of all others
are awaited before it is raised: nothing is executed behind our back later.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import pymysql

from config.errors import Halt
from replicator.delivery import Command

Tag = TypeVar("Tag")


class InFlight(Generic[Tag]):
    """The batches on their way over `connection`, the oldest first."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sent: deque[tuple[Tag, list[int]]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, commands: Iterable[Command], tag: Tag) -> None:
        """Write the commands of one batch; does not wait for their answers."""
        numbers = []
        for command, content in commands:
            self._connection._execute_command(command, content)
            # The answer's number follows on those of the packets that the command took.
            numbers.append(self._connection._next_seq_id)
        self._sent.append((tag, numbers))

    def answered(self) -> bool:
        """Is there an answer to be had without waiting? False also where none is known of."""
        socket = self._connection._sock
        return bool(self._sent and socket and select.select([socket], [], [], 0)[0])

    def receive(self) -> Tag:
        """Await the oldest one's answer; raises what the server or the link raises."""
        tag, numbers = self._sent[0]
        while numbers:
            try:
                self._read(numbers.pop(0))
            except (pymysql.MySQLError, OSError):
                self._await_the_rest()
                raise
        self._sent.popleft()
        return tag

    @property
    def oldest(self) -> Tag:
        """What goes with the batch that is answered next, or has just failed."""
        return self._sent[0][0]

    def _read(self, number: int) -> None:
        self._connection._next_seq_id = number
        self._connection._read_query_result()

    def _await_the_rest(self) -> None:
        """Of each batch the last command must fail: it built upon what has failed."""
        for _tag, numbers in self._sent:
            failed = not numbers
            for number in numbers:
                if self._connection._sock is None:
                    return
                try:
                    self._read(number)
                    failed = False
                except (pymysql.MySQLError, OSError):
                    failed = True
            if not failed:
                raise Halt(
                    "the replica took a batch though the one before it had failed",
                    hint="Do not start again. Compare with: replicator verify; and report this.",
                )
