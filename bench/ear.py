"""An ear at the replica's binlog: when each row of the narrow table was committed there.

Left: the replica's binlog from where it ends now, read on a thread of its own as one more
replica client would. Right: for each key the time at which its last change came by, which is
later than its commit on the replica by the way over loopback.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Self

from bench import practice
from bench.rig import Rig
from config.connections import connect_mysql
from loader.decoder import best_decoder
from loader.rows import RowChange, plan_for
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import Commit, Rows, TransactionReader
from replicator.sandbox.waiting import wait_until

_SERVER_ID = 4_000_000_000


class Ear:
    """Listens inside its context."""

    def __init__(self, rig: Rig) -> None:
        self._start = rig.observer.replica_position()
        server = rig.settings.replication
        self._stream = BinlogStream(
            partial(connect_mysql, server),
            server_id=_SERVER_ID,
            heartbeat_seconds=1.0,
            name="replica",
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._heard: dict[int, float] = {}
        self.transactions = 0

    def __enter__(self) -> Self:
        self._stream.open(self._start)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._stream.close()

    def heard(self, last: int) -> dict[int, float]:
        """By key, when it was heard last; waits for the key `last`."""
        wait_until(lambda: last in self._heard, 10, what="the last row in the replica's binlog")
        return dict(self._heard)

    def _listen(self) -> None:
        reader, decoder = TransactionReader(self._start), best_decoder()
        came: list[Rows] = []
        while not self._stop.is_set():
            events = self._stream.read(0.2)
            now = time.time()
            for raw in events:
                change = reader.feed(raw)
                if isinstance(change, Rows) and change.table.table == practice.NARROW:
                    came.append(change)
                elif isinstance(change, Commit):
                    self.transactions += bool(came)
                    for rows in came:
                        for row in decoder.decode(rows.event, plan_for(rows.table)):
                            self._note(row, now)
                    came.clear()

    def _note(self, row: RowChange, now: float) -> None:
        if row.key is not None:
            self._heard[int(row.key)] = now
