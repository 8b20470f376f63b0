"""Copy submitted tables beside the stream, several at once.

Left: requests from the daemon's thread. Right: `LoadedTable`s, or the error that ended a
copying thread, for the daemon's thread to take. Which tables share a snapshot is decided
here; what a copy of a group is, and why it is exact, stands in `reload`. Two threads never
copy the same table at the same time, and a group has nothing in common with another: each
has its connections, its snapshot, its mark and its place in the binlog.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

import psycopg

from config.errors import ReplicatorError, classify
from loader.load.reload import Connections, Copier, LoadedTable, LoadRequest
from loader.masking import Masker

GROUP_TABLES = 64
GROUP_BYTES = 32 << 20
"""Small tables share a snapshot: so many at most, of so many bytes together."""


class Groups:
    """Requests that wait, handed out in groups that share a snapshot; safe between threads.

    Small tables go together, large ones alone. One thread begins with the small ones, so that
    most tables are there soon; the others begin with the large ones, which take longest.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, LoadRequest] = {}
        self._copying: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, requests: Iterable[LoadRequest]) -> None:
        """Let these wait; a later request for a table takes the earlier one's place."""
        with self._changed:
            self._waiting.update((request.table, request) for request in requests)
            self._changed.notify_all()

    def close(self) -> None:
        """There is nothing left to do for anybody."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for a request; False when none will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready() or self._closed)
            return not self._closed

    def _ready(self) -> list[LoadRequest]:
        """What may be begun: a table's copy waits for the end of an earlier one."""
        self._waiting = {t: r for t, r in self._waiting.items() if not r.cancelled.is_set()}
        return [r for table, r in self._waiting.items() if table not in self._copying]

    @contextmanager
    def taken(self, sizes: Mapping[str, int], *, large: bool) -> Iterator[list[LoadRequest]]:
        """The next group, of the smallest tables or of the largest; empty where none waits."""
        with self._changed:
            group = group_of(self._ready(), sizes, large=large)
            names = {request.table for request in group}
            self._copying |= names
            for name in names:
                del self._waiting[name]
        try:
            yield group
        finally:
            with self._changed:
                self._copying -= names
                self._changed.notify_all()


def group_of(
    requests: Iterable[LoadRequest], sizes: Mapping[str, int], *, large: bool
) -> list[LoadRequest]:
    """Those of the smallest (largest) tables that may share a snapshot, at least one. Pure."""
    group: list[LoadRequest] = []
    held = 0
    for request in sorted(requests, key=lambda r: sizes.get(r.table, 0), reverse=large):
        held += sizes.get(request.table, 0)
        if group and (len(group) >= GROUP_TABLES or held > GROUP_BYTES):
            break
        group.append(request)
    return group


class LoadWorker:
    """Threads with connections of their own that copy what is submitted, group by group."""

    def __init__(
        self,
        connect: Callable[[], Connections],
        database: str,
        server: str,
        connections: int = 1,
        *,
        masker: Masker,
        analytics: str = "analytics",
    ) -> None:
        """`server`, `analytics`: the labels of what is read and of what is written."""
        self._connect = connect
        self._database = database
        self._server = server
        self._analytics = analytics
        self._masker = masker
        self._groups = Groups()
        self._results: queue.SimpleQueue[LoadedTable | ReplicatorError] = queue.SimpleQueue()
        self._submitted: list[LoadRequest] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._run, args=(number > 0,), name=f"loader-reload-{number}", daemon=True
            )
            for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, requests: list[LoadRequest]) -> None:
        """Copy these tables when their turn comes."""
        if requests:
            self._submitted = [r for r in self._submitted if not r.cancelled.is_set()] + requests
            self._groups.add(requests)

    def results(self) -> Iterator[LoadedTable]:
        """Copies that became whole since the last call; raises what made a thread fail."""
        while True:
            try:
                result = self._results.get_nowait()
            except queue.Empty:
                return
            if isinstance(result, ReplicatorError):
                raise result
            self._submitted = [r for r in self._submitted if r is not result.request]
            yield result

    def stop(self, wait: float = 5.0) -> None:
        """Ask the threads to end, and wait a little for them."""
        self._stop.set()
        for request in self._submitted:
            request.cancelled.set()
        self._groups.close()
        deadline = time.monotonic() + wait
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, large: bool) -> None:
        while self._groups.wait():
            try:
                self._work(large=large)
            except Exception as error:  # the daemon raises it in its own thread
                whose = self._analytics if isinstance(error, psycopg.Error) else self._server
                self._results.put(classify(error, server=whose))
                return

    def _work(self, *, large: bool) -> None:
        """Copy groups until none waits; each of them at a snapshot of its own."""
        with closing(self._connect()) as connections:
            copier = Copier(connections, self._database, self._masker)
            while not self._stop.is_set():
                with self._groups.taken(copier.sizes(), large=large) as group:
                    if not group:
                        return
                    for loaded in copier.copy(group):
                        self._results.put(loaded)
