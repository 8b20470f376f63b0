# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Take whole small transactions at once, compiled: what a busy source mostly sends.

Left: raw events, from where no transaction is open. Right: a `Run`, the rows events of as
many whole transactions as can join one statement, with what must be known of them. It ends
before the first transaction that is not of the plainest kind, or not whole yet, or cannot
join: that one is for `TransactionReader` and `ExactMySQLReplicator`, event by event, and so
this module decides nothing that they would decide otherwise; it only says "plain" or "not".

`merged` is `batch.merged_python`, compiled.

A plain transaction: MariaDB's GTID event (neither XA nor standing alone), table maps of
tables that pass as they are or are ignored, rows events that such a map introduced in the
same transaction, and an XID event or a QUERY event `COMMIT`.

No byte is looked at before its event is known to be long enough.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

ctypedef unsigned char u8

cdef enum:
    HEADER = 19
    QUERY = 2
    XID = 16
    TABLE_MAP = 19
    GTID = 162
    NOT_PLAIN = 1 | 64 | 128  # stands alone; XA: prepared, completed
    STMT_END = 1
    MAPS = 16  # tables in one transaction; one with more is not small


cdef class Run:
    """What was taken: events up to `end`, `transactions` of them, the last two borders."""

    cdef readonly Py_ssize_t end
    cdef readonly Py_ssize_t transactions
    cdef readonly Py_ssize_t size
    cdef readonly list rows
    cdef readonly set ways
    cdef readonly long flags
    cdef readonly long long second
    cdef readonly bytes gtid
    cdef readonly bytes commit


cdef struct Known:
    uint64_t table_id
    bint passes


cdef inline uint64_t _table_id(const u8 *event) noexcept nogil:
    cdef const u8 *at = event + HEADER
    return (
        at[0] | <uint64_t>at[1] << 8 | <uint64_t>at[2] << 16 | <uint64_t>at[3] << 24
        | <uint64_t>at[4] << 32 | <uint64_t>at[5] << 40
    )


cdef inline uint32_t _timestamp(const u8 *event) noexcept nogil:
    return event[0] | <uint32_t>event[1] << 8 | <uint32_t>event[2] << 16 | <uint32_t>event[3] << 24


cdef bint _is_commit(const u8 *event, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t at
    if event[4] == XID:
        return True
    if event[4] != QUERY or length < HEADER + 13:
        return False
    at = HEADER + 13 + (event[30] | <Py_ssize_t>event[31] << 8) + event[27] + 1
    return length == at + 6 and memcmp(event + at, b"COMMIT", 6) == 0


def gather(
    list events, Py_ssize_t at, object find_way, long flags, long long second, Py_ssize_t room
) -> Run:
    """Take whole plain transactions from `events[at]` on.

    `find_way(table_map_event)` is asked once for each table map: None where its rows are
    not plain, else an object whose truth says whether they pass or are ignored, and whose
    `cost` is what the first of its rows costs beside their own bytes. `flags` and
    `second` are those of a statement that has rows already, -1 for one that has none; `room`
    is how many bytes of rows it takes.
    """
    cdef Run run = Run.__new__(Run)
    cdef Known[MAPS] known
    cdef int maps = 0, number
    cdef bint begun = False
    cdef dict ways = {}
    cdef list rows = [], names = [], used = []
    cdef bytes raw, gtid = b""
    cdef object key, way
    cdef const u8 *event
    cdef Py_ssize_t length, size = 0, count = len(events), here = at
    cdef long chosen = flags, mine
    run.rows, run.ways = [], set()
    run.end, run.flags, run.second = at, flags, second
    while 0 <= here < count:
        raw = events[here]
        event, length = <const u8 *>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
        here += 1
        if length < HEADER:
            break
        if event[4] == GTID:
            if begun or length < HEADER + 13 or event[31] & NOT_PLAIN:
                break
            if run.transactions and memcmp(event + 27, PyBytes_AS_STRING(run.gtid) + 27, 4):
                break  # of another domain: of a run only the last GTID is noted
            begun, gtid, maps, size, chosen = True, raw, 0, 0, run.flags
            rows, names, used = [], [], []
        elif not begun:
            break
        elif event[4] == TABLE_MAP:
            if length < HEADER + 8 or maps == MAPS:
                break
            key = PyBytes_FromStringAndSize(<const char *>event + HEADER, length - HEADER)
            if key in ways:
                way = ways[key]
            else:
                way = ways[key] = find_way(raw)
            if way is None:
                break
            known[maps].table_id = _table_id(event)
            known[maps].passes = bool(way)
            maps += 1
            names.append(way)
        elif 23 <= event[4] <= 25 or 30 <= event[4] <= 32:
            if length < HEADER + 8:
                break
            for number in range(maps - 1, -1, -1):
                if known[number].table_id == _table_id(event):
                    break
            else:
                break
            if known[number].passes:
                mine = (event[25] | <long>event[26] << 8) & ~STMT_END
                if chosen == -1:
                    chosen = mine
                size += length
                if mine != chosen or size > room:
                    break
                rows.append(_unended(raw, event, length))
                used.append(names[number])
        elif _is_commit(event, length):
            if run.second != _timestamp(event) and (run.rows or flags != -1):
                break
            begun = False
            room -= size
            run.second = _timestamp(event)
            run.rows += rows
            for way in used:
                if way not in run.ways:
                    run.ways.add(way)
                    room -= way.cost
            run.size += size
            run.flags = chosen
            run.gtid, run.commit, run.end = gtid, raw, here
            run.transactions += 1
            if room <= 0:
                break
        else:
            break
    return run


cdef bytes _unended(bytes raw, const u8 *event, Py_ssize_t length):
    """The rows event without the flag that ends the statement."""
    cdef bytes copy
    if not event[25] & STMT_END:
        return raw
    copy = PyBytes_FromStringAndSize(<const char *>event, length)
    (<u8 *>PyBytes_AS_STRING(copy))[25] &= 0xFF ^ STMT_END
    return copy


cdef Py_ssize_t _rows_at(const u8 *event, Py_ssize_t length) noexcept nogil:
    """Where the rows of a WRITE_ROWS event begin; 0 where that cannot be said."""
    cdef Py_ssize_t at = HEADER + 8
    if length < at + 2 or event[4] != 23 and event[4] != 30:
        return 0
    if event[4] == 30:
        at += event[at] | <Py_ssize_t>event[at + 1] << 8
    if length <= at or event[at] > 250:
        return 0
    at += 1 + (event[at] + 7) // 8
    return at if at <= length else 0


def merged(list events, Py_ssize_t limit) -> list:
    """The same rows in fewer events; see `batch.merged_python`."""
    cdef list left = []
    cdef Py_ssize_t number = 0, end, count = len(events), first_rows, size
    cdef bytes first, other
    while number < count:
        first = events[number]
        size = PyBytes_GET_SIZE(first)
        first_rows = _rows_at(<const u8 *>PyBytes_AS_STRING(first), size)
        end = number + 1
        if first_rows:
            while end < count:
                other = events[end]
                if not _joins(first, other, first_rows):
                    break
                if size + PyBytes_GET_SIZE(other) - first_rows > limit:
                    break
                size += PyBytes_GET_SIZE(other) - first_rows
                end += 1
        left.append(first if end == number + 1 else _joined(events, number, end, first_rows, size))
        number = end
    return left


cdef bint _joins(bytes first, bytes other, Py_ssize_t rows_at) noexcept:
    """Are both of one kind, for one table, with the same flags and columns?"""
    cdef const u8 *one = <const u8 *>PyBytes_AS_STRING(first)
    cdef const u8 *two = <const u8 *>PyBytes_AS_STRING(other)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(other)
    return (
        length >= rows_at
        and one[4] == two[4]
        and memcmp(one + HEADER, two + HEADER, rows_at - HEADER) == 0
    )


cdef bytes _joined(
    list events, Py_ssize_t start, Py_ssize_t end, Py_ssize_t rows_at, Py_ssize_t size
):
    """The events from `start` to `end` as one of `size` bytes, under the first one's head."""
    cdef bytes event = events[start]
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, size)
    cdef u8 *at = <u8 *>PyBytes_AS_STRING(whole)
    cdef Py_ssize_t number, part = PyBytes_GET_SIZE(event)
    memcpy(at, PyBytes_AS_STRING(event), part)
    for number in range(4):
        at[9 + number] = size >> 8 * number & 0xFF
    at += part
    for number in range(start + 1, end):
        event = events[number]
        part = PyBytes_GET_SIZE(event) - rows_at
        memcpy(at, <const u8 *>PyBytes_AS_STRING(event) + rows_at, part)
        at += part
    return whole
