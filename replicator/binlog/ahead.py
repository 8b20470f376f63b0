"""Read a binlog ahead of who works on it: a thread of its own fills a bounded queue.

Left: a `BinlogStream`, which the thread owns from `open` to `close`. Right: the same
surface as the stream's, so that either can stand in the other's place: `read` gives
events in their order, and what broke is raised there, in the caller's thread, behind
the last event that came whole.

The queue is bounded by bytes: who works slowly makes the thread wait, and then the
server. One event larger than the bound is let in alone. Nobody polls: the one who
waits sleeps on a condition, and the other wakes it. While the thread waits for room
it does not listen, but what came in meanwhile is read before silence is judged, so a
long pause of ours is never taken for the server's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from config.errors import ConnectionLost
from replicator.binlog.position import BinlogPosition
from replicator.binlog.stream import BinlogStream

QUEUE_BYTES = 16 << 20
"""Events that may wait, in bytes; a fifth of a second of what a fast server sends."""
_LISTEN_SECONDS = 1.0
"""How long one listen lasts; between them, missed heartbeats are noticed."""
_OBJECT_BYTES = 64
"""What an event costs beside its bytes."""


@dataclass(slots=True)
class _Piece:
    """Events that came together, and how the stream stood behind them."""

    events: list[bytes]
    size: int
    file: str
    format_description: bytes


class AheadStream:
    """A `BinlogStream` that goes on reading while its events are worked on.

    `stream` is given up to this object; `limit` bounds the bytes that wait in between.
    All methods are for one thread, the caller's.
    """

    def __init__(self, stream: BinlogStream, limit: int = QUEUE_BYTES) -> None:
        self._stream = stream
        self._limit = limit
        self._thread: threading.Thread | None = None
        self._queue = _Queue(limit)
        self.file = ""
        """The file that the last event handed over was in."""
        self.format_description = b""

    def open(self, position: BinlogPosition) -> None:
        """Ask for everything behind `position`, and begin to read it."""
        self.close()
        self._stream.open(position)
        self.file = position.file
        self._queue = _Queue(self._limit)
        self._thread = threading.Thread(
            target=_fill, args=(self._stream, self._queue), name="binlog reader", daemon=True
        )
        self._thread.start()

    def read(self, timeout: float) -> list[bytes]:
        """Events that have arrived, waiting up to `timeout` seconds for the first.

        Returns [] when none came in time; 0 takes what is there already, and more of it
        may be there still. Raises what the stream raised, once all before it is handed over.
        """
        if self._thread is None:
            raise ConnectionLost("the binlog stream is not open", hint="")
        piece = self._queue.take(timeout)
        if piece is None:
            return []
        self.file, self.format_description = piece.file, piece.format_description
        return piece.events

    @property
    def heard(self) -> float:
        """When the server was last heard (monotonic); what it had sent by then is to be read."""
        return self._queue.heard

    def close(self) -> None:
        """Hang up and end the thread; what waits is dropped."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.stop()
            self._stream.interrupt()
            thread.join()
        self._stream.close()


class _Queue:
    """Pieces between two threads, and what ended them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._pieces: deque[_Piece] = deque()
        self._size = 0
        self._error: BaseException | None = None
        self.stopped = False
        self.heard = time.monotonic()

    def put(self, piece: _Piece) -> None:
        """Append it once there is room; at once where nothing waits."""
        with self._lock:
            while self._pieces and self._size + piece.size > self._limit and not self.stopped:
                self._emptied.wait()
            self._pieces.append(piece)
            self._size += piece.size
            self._filled.notify()

    def fail(self, error: BaseException) -> None:
        """Nothing comes any more."""
        with self._lock:
            self._error = error
            self._filled.notify()

    def take(self, timeout: float) -> _Piece | None:
        """The oldest piece, None if there is none in time; raises behind the last."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while not self._pieces:
                if self._error is not None:
                    raise self._error
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._filled.wait(left)
            piece = self._pieces.popleft()
            self._size -= piece.size
            self._emptied.notify()
            return piece

    def stop(self) -> None:
        """Let nobody wait for room any more."""
        with self._lock:
            self.stopped = True
            self._emptied.notify()


def _fill(stream: BinlogStream, queue: _Queue) -> None:
    """What the thread does, until it is stopped or the stream breaks."""
    try:
        while not queue.stopped:
            events = stream.read(_LISTEN_SECONDS)
            if events:
                size = sum(map(len, events)) + _OBJECT_BYTES * len(events)
                queue.put(_Piece(events, size, stream.file, stream.format_description))
            queue.heard = stream.heard
    except BaseException as error:  # whatever it is, it is the caller's
        queue.fail(error)
