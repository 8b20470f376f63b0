# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""COPY text in, the same rows as COPY's binary form out, for what is known to the letter.

Left: blocks of whole lines as the folds make them, and the types of the columns that they go
into, as PostgreSQL itself names them. Right: PGCOPY tuples, or None: something in the block
has a form that is not known here (`copybinary.pxd`), and it is to be sent as it is.

*Exact*: the text stays what a row is, all else compares it and is written in it. A block
that becomes binary has only fields whose text one type's input function reads as one value, and
that value is what is written; PostgreSQL's receiving function then does what its input
function does behind that: it rounds to the column's scale or digits, looks at the UTF-8, asks
the domain. Whatever is in doubt is not for binary: NaN, an infinity, a leading plus, a
second of 60, an escape that the loader does not write, a damaged line.

A block is read from its own memory and never behind it; see `copybinary` for why.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, realloc

from loader.copybinary cimport (
    Passed, passed, put16, put32, read_bits, read_bool, read_bytea, read_date, read_float4, read_float8,
    read_int2, read_int4, read_int8, read_interval, read_numeric, read_text, read_timestamp,
    read_timestamptz, u8,
)

from replicator.binlog.fence cimport fence, unfence

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

cdef enum Kind:
    INT2
    INT4
    INT8
    BOOL
    FLOAT4
    FLOAT8
    NUMERIC
    BITS
    DATE
    TIMESTAMP
    TIMESTAMPTZ
    INTERVAL
    TEXT
    JSONB
    BYTEA

# By `oid` in PostgreSQL's pg_type.dat, which never changes.
cdef dict KINDS = {
    21: INT2, 23: INT4, 20: INT8, 16: BOOL, 700: FLOAT4, 701: FLOAT8, 1700: NUMERIC,
    1560: BITS, 1562: BITS, 1082: DATE, 1114: TIMESTAMP, 1184: TIMESTAMPTZ, 1186: INTERVAL,
    25: TEXT, 1042: TEXT, 1043: TEXT, 3802: JSONB, 17: BYTEA,
}

cdef Py_ssize_t ROOM = 32
"""Bytes of a field in binary form, its length with it, beyond those of its text: at most."""
cdef Py_ssize_t SPARE = 16
"""What is written behind the last of them and counts for nothing."""

cdef struct Made:
    u8 *data
    Py_ssize_t used
    Py_ssize_t room


@cython.final
cdef class Transcoder:
    """For columns of these types; ValueError where one of them is not known."""

    cdef Kind *_kinds
    cdef Py_ssize_t _width

    def __cinit__(self, types):
        cdef tuple oids = tuple(types)
        cdef Py_ssize_t index
        self._width = len(oids)
        if not 1 <= self._width <= 1600:
            raise ValueError("a table has 1 to 1600 columns")
        self._kinds = <Kind *>calloc(self._width, sizeof(Kind))
        if self._kinds == NULL:
            raise MemoryError
        for index in range(self._width):
            found = KINDS.get(oids[index])
            if found is None:
                raise ValueError("a type that has no binary form here")
            self._kinds[index] = <Kind><int>found

    def __dealloc__(self):
        free(self._kinds)

    def transcode(self, bytes lines not None):
        """Whole lines as tuples, without header and trailer; None where they are not for it."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(lines)
        cdef const u8 *data
        cdef Made made = Made(NULL, 0, 0)
        cdef int done
        if size == 0:
            return b""
        if PyBytes_AS_STRING(lines)[size - 1] != 10:
            return None
        data = fence(PyBytes_AS_STRING(lines), size)
        if data == NULL:
            raise MemoryError
        try:
            with nogil:
                done = self._lines(data, data + size, &made)
            if done < 0:
                raise MemoryError
            return PyBytes_FromStringAndSize(<char *>made.data, made.used) if done else None
        finally:
            unfence(data)
            free(made.data)

    cdef int _lines(self, const u8 *at, const u8 *end, Made *made) noexcept nogil:
        """1; 0 where something is not for binary, below 0 where there is no memory."""
        cdef Py_ssize_t index
        cdef Py_ssize_t last = self._width - 1
        cdef u8 *to
        cdef Passed found
        while at < end:
            if not reserve(made, end - at + ROOM * self._width + SPARE):
                return -1
            to = made.data + made.used
            put16(to, <int>self._width)
            to += 2
            for index in range(self._width):
                if at[0] == 92 and at[1] == 78:
                    at += 2
                    put32(to, -1)
                    to += 4
                else:
                    found = field(self._kinds[index], at, end, to)
                    if found.at == NULL:
                        return 0
                    at = found.at
                    to = found.to
                if at[0] != (9 if index < last else 10):
                    return 0
                at += 1
            made.used = to - made.data
        return 1


cdef bint reserve(Made *made, Py_ssize_t more) noexcept nogil:
    """Make room for `more` bytes; False where there is no memory."""
    cdef Py_ssize_t room
    cdef void *grown
    if made.room - made.used >= more:
        return True
    room = made.used + more + more // 2
    grown = realloc(made.data, <size_t>room)
    if grown == NULL:
        return False
    made.data = <u8 *>grown
    made.room = room
    return True


cdef inline Passed field(Kind kind, const u8 *at, const u8 *end, u8 *place) noexcept nogil:
    """A value with its length in front."""
    cdef u8 *to = place + 4
    cdef Passed found
    if kind == TEXT:
        found = read_text(at, end, to)
    elif kind == INT8:
        found = passed(read_int8(at, to), to + 8)
    elif kind == INT2:
        found = passed(read_int2(at, to), to + 2)
    elif kind == INT4:
        found = passed(read_int4(at, to), to + 4)
    elif kind == FLOAT8:
        found = passed(read_float8(at, to), to + 8)
    elif kind == DATE:
        found = passed(read_date(at, end, to), to + 4)
    elif kind == TIMESTAMPTZ:
        found = passed(read_timestamptz(at, end, to), to + 8)
    elif kind == TIMESTAMP:
        found = passed(read_timestamp(at, end, to), to + 8)
    elif kind == NUMERIC:
        found = read_numeric(at, to)
    elif kind == BYTEA:
        found = read_bytea(at, end, to)
    elif kind == JSONB:
        to[0] = 1
        found = read_text(at, end, to + 1)
    elif kind == INTERVAL:
        found = passed(read_interval(at, end, to), to + 16)
    elif kind == FLOAT4:
        found = passed(read_float4(at, to), to + 4)
    elif kind == BITS:
        found = read_bits(at, to)
    elif kind == BOOL:
        found = passed(read_bool(at, to), to + 1)
    else:
        return passed(NULL, to)
    if found.to - to > 0x7FFFFFFF:
        found.at = NULL
    put32(place, found.to - to)
    return found
