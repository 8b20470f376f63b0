# cython: language_level=3
"""What of the row kernel other compiled modules use: the compiled plan and its walk over images.

The walk runs without the GIL; it takes it where a Python reader must be asked.
"""

from cpython.ref cimport PyObject
from libc.stdint cimport uint64_t

ctypedef unsigned char u8

cdef enum Operation:  # as in rows, and in the order of the event types
    INSERT
    UPDATE
    DELETE

cdef enum Kind:
    BY_READER  # whatever the Python reader does
    MASKED  # as `under` says, and then the mask
    INTEGER
    YEAR
    FLOAT
    DOUBLE
    DECIMAL
    BIT
    DATE
    DATETIME2
    TIMESTAMP2
    TIME2
    OLD_DATETIME
    OLD_TIMESTAMP
    OLD_TIME
    ENUM
    SET
    UTF8
    MAPPED
    BYTES


cdef struct Member:
    const char *text
    Py_ssize_t length


cdef struct Column:
    Kind kind
    Py_ssize_t fixed  # bytes of the value; where 0, a length of `prefix` bytes comes before it
    Py_ssize_t prefix
    int first  # what the kind needs to know: signed, fsp, precision, digits, ASCII only, padding
    int second  # scale
    Py_ssize_t room  # most bytes of text of a value with a fixed length
    const u8 *table  # of a single-byte character set
    Member *members  # of ENUM and SET
    Py_ssize_t count
    bint wanted  # is it part of what tells rows apart?
    u8 mask  # what becomes of its text, see kernel.pyx; 0 where nothing does
    u8 dropped  # hidden by the server, or masked so that it stays away: stepped over


cdef struct Span:
    Py_ssize_t start
    Py_ssize_t end  # below start: NULL


# One image as COPY text, and where in it each column stands.
cdef struct Text:
    u8 *data
    Py_ssize_t used
    Py_ssize_t room
    Span *spans


# One event. The two objects are borrowed: the caller holds them while the event is walked.
cdef struct Source:
    const u8 *data
    Py_ssize_t size
    PyObject *event
    PyObject *faults  # a list


cdef int reserve(Text *text, Py_ssize_t more) except -1 nogil
cdef int operation_of(u8 kind) noexcept nogil
cdef void lend(Text *kept, Text *lent, Py_ssize_t width) noexcept nogil
cdef void give_back(Text *lent, Text *kept) noexcept nogil

cdef Py_ssize_t BODY


cdef class CompiledPlan:
    cdef object plan
    cdef tuple readers
    cdef list masks  # of masked columns, what is called with each value's text
    cdef list kept  # what pointers in `columns` point into
    cdef Column *columns
    cdef Column *under  # masked columns as they are without
    cdef Py_ssize_t visible  # columns with a reader
    cdef Py_ssize_t width  # columns in the image
    cdef Py_ssize_t bitmap
    cdef Py_ssize_t *key
    cdef Py_ssize_t key_length
    cdef Py_ssize_t behind_key  # columns from here on are not part of the key
    cdef Py_ssize_t room  # for the text of all values with a fixed length, and what is between
    cdef bint foreign  # no table of a server's has such columns
    cdef bint dropping  # are there dropped columns before the hidden ones?

    cdef int _compile(self, Py_ssize_t index) except -1
    cdef int _compile_decimal(self, Column *column, schema) except -1
    cdef int _compile_fixed(self, Column *column, reader) except -1
    cdef int _take_members(self, Column *column, list members) except -1
    cdef int _compile_string(self, Column *column, convert, schema) except -1
    cdef int take(
        self, Source *source, int operation, Text *old, Text *new, list changes
    ) except -1
    cdef object written(self, int operation, Text *text, list faults)
    cdef Py_ssize_t body(self, Source *source, int operation) except -1 nogil
    cdef bint complete(self, Source *source, Py_ssize_t at, Py_ssize_t bitmaps) noexcept nogil
    cdef Py_ssize_t behind(self, Column *column, Source *source, Py_ssize_t at) except -1 nogil
    cdef Py_ssize_t whole(self, Source *source, Py_ssize_t at, Text *text) except -1 nogil
    cdef Py_ssize_t whole_but_dropped(
        self, Source *source, Py_ssize_t nulls, Py_ssize_t at, Text *text
    ) except -1 nogil
    cdef Py_ssize_t key_only(self, Source *source, Py_ssize_t at, Text *text) except -1 nogil
    cdef Py_ssize_t field(
        self, Column *column, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1 nogil
    cdef Py_ssize_t by_reader(
        self, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1
    cdef Py_ssize_t unusual_field(
        self, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1 nogil
    cdef int mask(
        self, Py_ssize_t index, Source *source, Text *text, Py_ssize_t start
    ) except -1 nogil
    cdef int mask_by_python(
        self, Py_ssize_t index, Source *source, Text *text, Py_ssize_t start
    ) except -1
    cdef bint has_key(self, Text *text) noexcept nogil
    cdef Py_ssize_t key_size(self, Text *text) noexcept nogil
    cdef void put_key(self, Text *text, u8 *to) noexcept nogil
    cdef bytes key_text(self, Text *text)
    cdef bint same_key(self, Text *one, Text *other) noexcept nogil
