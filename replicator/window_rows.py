"""Sort the rows of an event by what becomes of them in a table that is in its copy's window. Pure.

Left: a rows event cut into images, which may hold some of a row's columns only. Right: rows
that go, whole rows that come, parts of rows that stay under their keys, and the keys of rows
that moved there of which we have not seen enough.

In a window the table's own rows may be older than the event or newer. So a row is *whole* only
if the event alone tells all of it: an inserted one (what it leaves out has its default), or an
updated one whose two images together hold every stored column. What an image leaves out of an
updated row cannot be taken from the table under another key: see decision 15.

The rows of one `WindowRows` have different keys, so that they can be treated in any order;
an event that comes back to a key is cut into single rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from config.errors import UnknownEvent
from replicator.binlog.rowsplit import CutEvent, Image, Row, RowSplitter, Values, image_of

Key = tuple[bytes | None, ...]


@dataclass(slots=True)
class Images:
    """Images of rows that all hold the same columns: bit 0 is the first."""

    columns: int = 0
    images: list[Image] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.images)

    def add(self, columns: int, image: Image) -> None:
        """Append an image of these columns."""
        self.columns = columns
        self.images.append(image)


@dataclass(slots=True)
class WindowRows:
    """What one event, or one row of it, does; each list has its own columns."""

    gone: Images = field(default_factory=Images)
    """Rows that are not under this key any more."""
    whole: Images = field(default_factory=Images)
    """Rows as they are now; columns that are left out have their defaults, or are generated."""
    parts: Images = field(default_factory=Images)
    """Keys, and the columns that changed, of rows that have kept their keys."""
    moved: Images = field(default_factory=Images)
    """Keys of rows of which nothing else is certain."""
    event: bytes = b""
    """The row's own event, where it stands alone and is `moved`."""


def sort_rows(
    cut: CutEvent, splitter: RowSplitter, key: Sequence[int], stored: int, *, settled: bool = False
) -> list[WindowRows]:
    """What the event does.

    `key` is the primary key's columns, `stored` a bitmap of all that are not generated. `settled`:
    rows of the table may be certain, so an event with rows that moved is cut into single rows.
    """
    if not cut.rows:
        return []
    if cut.rows[0].before is None:
        return [WindowRows(whole=Images(cut.after_columns, [row.raw for row in cut.rows]))]
    if cut.rows[0].after is None:
        return [WindowRows(gone=Images(cut.before_columns, [row.raw for row in cut.rows]))]
    sorter = _Sorter(cut, splitter, key, stored)
    updates = [sorter.keys(row) for row in cut.rows]
    if _comes_back(updates) or (settled and any(map(sorter.uncertain, updates))):
        return [sorter.sort([update], alone=True) for update in updates]
    return [sorter.sort(updates)]


@dataclass(slots=True)
class _Update:
    row: Row
    before: Key
    after: Key

    @property
    def stays(self) -> bool:
        return self.before == self.after


def _comes_back(updates: list[_Update]) -> bool:
    """Does a row begin under a key that an earlier one of the event has ended under?

    The bytes tell: where it is the same row, it was stored so by the earlier change.
    """
    ended: set[Key] = set()
    for update in updates:
        if update.before in ended:
            return True
        ended.add(update.after)
    return False


class _Sorter:
    """Sorts the updates of one event."""

    def __init__(
        self, cut: CutEvent, splitter: RowSplitter, key: Sequence[int], stored: int
    ) -> None:
        self._cut, self._splitter, self._key = cut, splitter, key
        self._told = cut.after_columns & stored == stored
        self._both_tell = (cut.before_columns | cut.after_columns) & stored == stored
        if any(not cut.before_columns >> column & 1 for column in key):
            raise UnknownEvent(
                f"an update of table {splitter.table} does not name the row's primary key",
                hint="Copy the table again: replicator resync it; and report it with the source's"
                " version and its binlog_row_image.",
            )

    def keys(self, row: Row) -> _Update:
        """The row with its keys before and after."""
        cut, splitter = self._cut, self._splitter
        if row.before is None or row.after is None:
            raise AssertionError("an update has two images")
        before = splitter.some_values(row.before, cut.before_columns, self._key)
        after = before | splitter.some_values(row.after, cut.after_columns, self._key)
        return _Update(row, _ordered(before, self._key), _ordered(after, self._key))

    def uncertain(self, update: _Update) -> bool:
        """Does the row stand under a key now, and all we know of it is not in the event?"""
        return update.row.patches or not (self._both_tell or update.stays)

    def sort(self, updates: list[_Update], *, alone: bool = False) -> WindowRows:
        """What these updates do; `alone` where it is one."""
        rows = WindowRows()
        for update in updates:
            uncertain = self.uncertain(update)
            if uncertain or not update.stays:
                rows.gone.add(self._cut.before_columns, update.row.before or b"")
            if uncertain:
                rows.moved.add(*self._image(dict(zip(self._key, update.after, strict=True))))
                rows.event = self._cut.alone(update.row) if alone else b""
            elif self._told:
                rows.whole.add(self._cut.after_columns, update.row.after or b"")
            elif self._both_tell:
                rows.whole.add(*self._image(self._before(update) | self._after(update)))
            else:
                key = dict(zip(self._key, update.after, strict=True))
                rows.parts.add(*self._image(self._after(update) | key))
        return rows

    def _before(self, update: _Update) -> Values:
        return self._splitter.values(update.row.before or b"", self._cut.before_columns)

    def _after(self, update: _Update) -> Values:
        return self._splitter.values(update.row.after or b"", self._cut.after_columns)

    def _image(self, values: Values) -> tuple[int, Image]:
        return image_of(values, self._splitter.width)


def _ordered(values: Values, key: Sequence[int]) -> Key:
    return tuple(values[column] for column in key)
