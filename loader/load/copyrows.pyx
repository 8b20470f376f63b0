# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Blocks of a SELECT's rows in, COPY text out, compiled: a table's copy from the replica.

It does what `loader.load.tablereader.PythonReader` does, byte for byte, without making a Python
object for each value and without holding Python's lock: `copytext.pxd` writes the values,
this file walks the packets. How a column is read is compiled once from the converter that
`loader.load.selected` made for it, so that there is one account of it. A converter that is not
known here is called for every value; any is called for a value that has no text, so that
there is one account of faults as well.

A row's bytes are checked to lie within its packet, and the packet within its block, before
they are looked at. What a value may need of the buffer is reserved before it is written.

Format: MySQL's manual, "Client/Server Protocol", "Text Resultset Row".
"""

import functools

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcmp, memcpy, strlen

from loader.copytext cimport (
    big, little, put_bits, put_date, put_double, put_hex, put_mapped, put_utf8,
)
from replicator.binlog.fence cimport fence, unfence

from loader import charsets, masking
from loader.load import selected
from loader.values import escaped
from loader.upsert import exception_key

ctypedef unsigned char u8

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *text, char **end, void *overflow) except? -1.0
    char *PyOS_double_to_string(
        double number, char form, int precision, int flags, int *kind
    ) except NULL
    const int Py_DTSF_ADD_DOT_0

cdef Py_ssize_t NARROW = 64
"""Most bytes of text of a value that is not a string's, with what is written behind it."""
cdef Py_ssize_t KEPT_ROOM = 8 << 20
"""A larger buffer is given back after the block that needed it."""
cdef Py_ssize_t FRAME = 0xFFFFFF

# What becomes of a masked column's text once it is written, as in the row kernel.
cdef enum:
    BY_MASK = 1  # whatever the mask does
    TO_WORD = 2  # a word in its place, unless it is empty
    TO_NULL = 3
cdef bytes REDACTED = masking.REDACTED
cdef const char *WORD = PyBytes_AS_STRING(REDACTED)
cdef Py_ssize_t WORD_LENGTH = PyBytes_GET_SIZE(REDACTED)
cdef list NO_OWN_FAULTS = []
cdef dict MASKS = {masking.redacted: TO_WORD, masking.nothing: TO_NULL}

cdef enum Kind:
    BY_CONVERTER  # whatever the Python converter does
    MASKED  # as `under` says, and then the mask
    DIGITS
    NUMBER
    DOUBLE
    MOMENT
    BITS
    UTF8
    JSON
    MAPPED
    BYTES


cdef struct Column:
    Kind kind
    int first  # what the kind needs to know: bits, ASCII only, bytes of suffix
    const u8 *table  # of a single-byte character set; a moment's suffix
    int mask  # what becomes of its text; 0 where nothing does
    Py_ssize_t start  # where the row's value stands in the text
    Py_ssize_t end  # below start: NULL


cdef struct Text:
    u8 *data
    Py_ssize_t used
    Py_ssize_t room


cdef struct Source:
    const u8 *data
    Py_ssize_t size


cdef int grow(Text *text, Py_ssize_t more) except -1 nogil:
    cdef Py_ssize_t room = text.used + more + text.room // 2 + 4096
    cdef void *grown = realloc(text.data, room)
    if grown == NULL:
        with gil:
            raise MemoryError
    text.data = <u8 *>grown
    text.room = room
    return 0


cdef inline int reserve(Text *text, Py_ssize_t more) except -1 nogil:
    """Make room for `more` bytes."""
    if text.room - text.used < more:
        grow(text, more)
    return 0


@cython.final
cdef class KernelReader:
    """The compiled `RowReader`."""

    cdef readonly str table
    cdef readonly Py_ssize_t rows
    cdef tuple converters
    cdef list masks  # of masked columns, what is called with each value's text
    cdef list kept  # what pointers in `columns` point into
    cdef list noted  # (row's name, fault)
    cdef list row_faults
    cdef Column *columns
    cdef Column *under  # masked columns as they are without
    cdef Py_ssize_t width
    cdef Py_ssize_t *key
    cdef Py_ssize_t key_length
    cdef bytes ending
    cdef const u8 *closing
    cdef Py_ssize_t closing_length
    cdef Text text
    cdef bint busy

    def __cinit__(self, table_schema, bytes ending not None):
        self.table = table_schema.name
        self.converters = tuple(selected.converter(c) for c in table_schema.columns)
        self.masks = [None] * len(self.converters)
        self.kept, self.noted, self.row_faults = [], [], []
        self.ending = ending
        self.closing = <const u8 *>PyBytes_AS_STRING(ending)
        self.closing_length = PyBytes_GET_SIZE(ending)
        self.width = len(self.converters)
        self.key_length = len(table_schema.primary_key)
        self.columns = <Column *>calloc(self.width + 1, sizeof(Column))
        self.key = <Py_ssize_t *>calloc(self.key_length + 1, sizeof(Py_ssize_t))
        self.under = <Column *>calloc(self.width + 1, sizeof(Column))
        if self.columns == NULL or self.under == NULL or self.key == NULL:
            raise MemoryError
        for index in range(self.width):
            self._compile_masked(index, self.converters[index])
        for place, index in enumerate(table_schema.primary_key):
            if not 0 <= index < self.width:
                raise ValueError(index)
            self.key[<Py_ssize_t>place] = index

    def __dealloc__(self):
        free(self.columns)
        free(self.under)
        free(self.key)
        free(self.text.data)

    cdef int _compile_masked(self, Py_ssize_t index, converter) except -1:
        """A column whose mask, if it has one, is called with the text that was written."""
        cdef Column *column = &self.columns[index]
        if isinstance(converter, functools.partial):
            if converter.func is masking.masked_converter:
                self.masks[index], converter = converter.args
                column.mask = MASKS.get(self.masks[index], BY_MASK)
        self._compile(column, converter)
        if column.mask:
            self.under[index] = column[0]
            column.kind = MASKED
        return 0

    cdef int _compile(self, Column *column, converter) except -1:
        column.kind = BY_CONVERTER
        if converter is selected.bytea_text:
            column.kind = BYTES
        elif converter is selected.digits:
            column.kind = DIGITS
        elif converter is selected.number:
            column.kind = NUMBER
        elif converter is selected.double:
            column.kind = DOUBLE
        elif isinstance(converter, functools.partial):
            function, given = converter.func, converter.args
            if function is selected.text:
                self._compile_text(column, given[0])
            elif function is selected.bit_text and 1 <= given[0] <= 64:
                column.kind, column.first = BITS, given[0]
            elif function is selected.moment and len(given[0]) <= 8:
                column.kind, column.first = MOMENT, len(given[0])
                self.kept.append(given[0])
                column.table = <const u8 *>PyBytes_AS_STRING(given[0])
            elif function is selected.json:
                column.kind = JSON
        return 0

    cdef int _compile_text(self, Column *column, str charset) except -1:
        cdef bytes table
        if charsets.is_utf8(charset):
            column.kind, column.first = UTF8, charset == "ascii"
        elif charset in charsets.SINGLE_BYTE_SETS:
            characters = charsets.single_byte_table(charset)
            table = mapped(characters)
            self.kept.append(table)
            column.kind, column.first = MAPPED, characters[32:127] == PLAIN_ASCII
            column.table = <const u8 *>PyBytes_AS_STRING(table)
        return 0

    def convert(self, bytes block not None):
        """See `RowReader`."""
        cdef Source source
        if self.busy:
            raise RuntimeError("one block at a time")
        source.size = PyBytes_GET_SIZE(block)
        source.data = fence(PyBytes_AS_STRING(block), source.size)
        if source.data == NULL:
            raise MemoryError
        self.busy = True
        self.text.used = 0
        try:
            with nogil:
                self.take(&source)
            return PyBytes_FromStringAndSize(<char *>self.text.data, self.text.used)
        except ValueError as error:
            raise selected.malformed(self.table) from error
        finally:
            self.busy = False
            self.row_faults.clear()
            unfence(source.data)
            if self.text.room > KEPT_ROOM:
                free(self.text.data)
                self.text.data = NULL
                self.text.room = 0

    def take_faults(self):
        """See `RowReader`."""
        noted, self.noted = self.noted, []
        return noted

    cdef int take(self, Source *source) except -1 nogil:
        """All packets of the block."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t end
        reserve(&self.text, source.size + (source.size >> 1) + 4096)
        while at < source.size:
            if source.size - at < 4:
                self.malformed()
            end = at + 4 + <Py_ssize_t>little(source.data + at, 3)
            if at == 0 and end == 4 + FRAME and source.data[3] == 0:
                end = source.size  # a giant row: its frames are joined
            if end > source.size:
                self.malformed()
            self.row(source, at + 4, end)
            at = end
        return 0

    cdef int row(self, Source *source, Py_ssize_t at, Py_ssize_t end) except -1 nogil:
        """One row's line; none where its key cannot be held."""
        cdef Text *text = &self.text
        cdef Py_ssize_t start = text.used
        cdef Py_ssize_t index
        cdef Py_ssize_t length
        cdef bint faulty = False
        cdef Column *column
        cdef Column *told  # how the value is written: as `column` says, or as it is without a mask
        for index in range(self.width):
            column = told = &self.columns[index]
            reserve(text, NARROW + self.closing_length)
            if index:
                text.data[text.used] = 9
                text.used += 1
            column.start = text.used
            if at >= end:
                self.malformed()
            length = source.data[at]
            at += 1
            if length >= 0xFB:
                if length == 0xFB:
                    put_null(text, column)
                    continue
                at = self.long_length(source, at, end, &length)
            if end - at < length:
                self.malformed()
            while not self.value(told, source, at, length):
                if told.kind != MASKED:
                    self.by_converter(index, column, source.data + at, length)
                    faulty = True
                    break
                told = &self.under[index]
                told.start = column.start
            else:
                if told != column:
                    self.mask(index, column)
            column.end = text.used if column.end >= column.start else column.end
            at += length
        if at != end:
            self.malformed()
        if faulty:
            self.settle_faults(start)
        if not self.has_key():
            text.used = start
            return 0
        reserve(text, self.closing_length + 1)
        memcpy(text.data + text.used, self.closing, self.closing_length)
        text.used += self.closing_length
        text.data[text.used] = 10
        text.used += 1
        self.rows += 1
        return 0

    cdef Py_ssize_t long_length(
        self, Source *source, Py_ssize_t at, Py_ssize_t end, Py_ssize_t *length
    ) except -1 nogil:
        """A length of two, three or eight bytes; the offset behind it."""
        cdef Py_ssize_t width = 2 if length[0] == 0xFC else 3 if length[0] == 0xFD else 8
        cdef uint64_t found
        if length[0] == 0xFF or end - at < width:
            self.malformed()
        found = little(source.data + at, width)
        if found > <uint64_t>(end - at - width):
            self.malformed()
        length[0] = <Py_ssize_t>found
        return at + width

    cdef int malformed(self) except -1 nogil:
        with gil:
            raise selected.malformed(self.table)

    cdef inline bint has_key(self) noexcept nogil:
        cdef Py_ssize_t place
        for place in range(self.key_length):
            if self.columns[self.key[place]].end < self.columns[self.key[place]].start:
                return False
        return True

    cdef int value(
        self, Column *column, Source *source, Py_ssize_t at, Py_ssize_t length
    ) except -1 nogil:
        """Write a value behind the text; 0 where its converter must be asked."""
        cdef Text *text = &self.text
        cdef const u8 *data = source.data + at
        cdef Kind kind = column.kind
        cdef u8 *to = NULL
        column.end = column.start
        if kind == NUMBER or kind == DIGITS:
            reserve(text, length + NARROW)
            to = put_digits(text.data + text.used, data, length, kind == NUMBER)
        elif kind == UTF8:
            reserve(text, 2 * length + NARROW)
            to = put_utf8(text.data + text.used, data, length, source.size - at, column.first)
        elif kind == MOMENT:
            to = put_moment_text(text.data + text.used, data, length)
            if to != NULL:
                memcpy(to, column.table, column.first)
                to += column.first
        elif kind == DOUBLE:
            to = put_short_double(text.data + text.used, data, length)
            if to == NULL:
                to = self.exact_double(data, length)
        elif kind == MAPPED:
            reserve(text, 3 * length + NARROW)
            to = put_mapped(
                text.data + text.used, data, length, source.size - at, column.table, column.first
            )
        elif kind == BYTES:
            reserve(text, 2 * length + NARROW)
            memcpy(text.data + text.used, b"\\\\x", 3)
            to = put_hex(text.data + text.used + 3, data, length)
        elif kind == BITS:
            if length <= 8:
                reserve(text, 64 + NARROW)
                to = put_bits(text.data + text.used, big(data, length), column.first)
        elif kind == JSON and not has_nul_escape(data, length):
            reserve(text, 2 * length + NARROW)
            to = put_utf8(text.data + text.used, data, length, source.size - at, False)
        if to == NULL:
            return 0
        text.used = to - text.data
        return 1

    cdef u8 *exact_double(self, const u8 *data, Py_ssize_t length) except? NULL nogil:
        """A double of any form as `repr` writes it; NULL where it is none."""
        cdef char copy[64]
        cdef char *behind
        cdef u8 *to = self.text.data + self.text.used
        cdef u8 *end
        cdef double number
        if length == 0 or length > 40 or not is_numeral(data, length):
            return NULL
        memcpy(copy, data, length)
        copy[length] = 0
        with gil:
            number = PyOS_string_to_double(copy, &behind, NULL)
            if behind != copy + length:
                return NULL
        end = put_double(to, number)
        if end != NULL:
            return end
        with gil:
            behind = PyOS_double_to_string(number, 114, 0, Py_DTSF_ADD_DOT_0, NULL)
            length = strlen(behind)
            memcpy(to, behind, length)  # at most 24 bytes
            PyMem_Free(behind)
        return to + length

    cdef int by_converter(
        self, Py_ssize_t index, Column *column, const u8 *data, Py_ssize_t length
    ) except -1 with gil:
        """Write a value with its column's Python converter, which also notes what is at fault."""
        cdef Text *text = &self.text
        cdef bytes value = self.converters[index](
            PyBytes_FromStringAndSize(<const char *>data, length), self.row_faults
        )
        if value is None:
            put_null(text, column)
            return 0
        length = PyBytes_GET_SIZE(value)
        reserve(text, length + NARROW)
        memcpy(text.data + text.used, PyBytes_AS_STRING(value), length)
        text.used += length
        return 0

    cdef int mask(self, Py_ssize_t index, Column *column) except -1 nogil:
        """Put what a column's mask makes of its text in its place."""
        cdef Text *text = &self.text
        if column.mask == TO_NULL:
            text.used = column.start
            put_null(text, column)
        elif column.mask == BY_MASK:
            self.mask_by_python(index, column)
        elif text.used > column.start:
            text.used = column.start
            reserve(text, WORD_LENGTH + NARROW)
            memcpy(text.data + text.used, WORD, WORD_LENGTH)
            text.used += WORD_LENGTH
        return 0

    cdef int mask_by_python(self, Py_ssize_t index, Column *column) except -1 with gil:
        cdef Text *text = &self.text
        cdef Py_ssize_t length = text.used - column.start
        cdef bytes value = self.masks[index](
            PyBytes_FromStringAndSize(<char *>text.data + column.start, length),
            NO_OWN_FAULTS,
            self.row_faults,
        )
        text.used = column.start
        if value is None:
            put_null(text, column)
            return 0
        length = PyBytes_GET_SIZE(value)
        reserve(text, length + NARROW)
        memcpy(text.data + text.used, PyBytes_AS_STRING(value), length)
        text.used += length
        return 0

    cdef int settle_faults(self, Py_ssize_t start) except -1 with gil:
        """Note the row's faults, if there are any, under its name."""
        if self.row_faults:
            name = exception_key(self.key_text(start), has_key=self.key_length > 0)
            self.noted.extend([(name, fault) for fault in self.row_faults])
            self.row_faults.clear()
        return 0

    cdef object key_text(self, Py_ssize_t start):
        """The key's columns in key order; None where one is NULL. Without a key, the row."""
        cdef Py_ssize_t place
        cdef Column *column
        cdef char *data = <char *>self.text.data
        if not self.key_length:
            return PyBytes_FromStringAndSize(data + start, self.text.used - start)
        if not self.has_key():
            return None
        fields = []
        for place in range(self.key_length):
            column = &self.columns[self.key[place]]
            fields.append(PyBytes_FromStringAndSize(data + column.start, column.end - column.start))
        return b"\t".join(fields)


cdef str PLAIN_ASCII = "".join(map(chr, range(32, 127)))


cdef bytes mapped(str table):
    """A single-byte set's 256 characters as `put_mapped` wants them."""
    cdef list entries = []
    for character in table:
        # U+FFFE: no such character. NUL: a fault in PostgreSQL's text.
        text = b"" if character in "\ufffe\0" else escaped(character.encode())
        entries.append(text.ljust(3, b"\0") + bytes([len(text)]))
    return b"".join(entries)


cdef inline void put_null(Text *text, Column *column) noexcept nogil:
    """There is room: see `NARROW`."""
    text.data[text.used] = 92
    text.data[text.used + 1] = 78
    text.used += 2
    column.end = column.start - 1


cdef inline bint is_digit(u8 byte) noexcept nogil:
    return 48 <= byte <= 57


cdef inline bint is_numeral(const u8 *at, Py_ssize_t length) noexcept nogil:
    """Nothing but digits, signs, a point and an exponent's letter."""
    cdef Py_ssize_t place
    for place in range(length):
        if not (is_digit(at[place]) or at[place] in (43, 45, 46, 69, 101)):
            return False
    return True


cdef inline u8 *put_digits(u8 *to, const u8 *at, Py_ssize_t left, bint number) noexcept nogil:
    """Digits, minus, point and colon as they are, a number's leading zeros left out.

    As many bytes as there are. NULL: something else, or nothing.
    """
    if left == 0:
        return NULL
    if number:
        if at[0] == 45:
            to[0] = 45
            to += 1
            at += 1
            left -= 1
        while left > 1 and at[0] == 48 and is_digit(at[1]):
            at += 1
            left -= 1
    while left:
        if not (is_digit(at[0]) or at[0] == 46 or at[0] == 45 or at[0] == 58):
            return NULL
        to[0] = at[0]
        to += 1
        at += 1
        left -= 1
    return to


cdef inline u8 *put_short_double(u8 *to, const u8 *at, Py_ssize_t length) noexcept nogil:
    """A decimal without an exponent of at most 15 digits, as `repr` writes what it reads as.

    No two decimals of so few digits read as the same double, so `repr` gives these very digits
    back; it writes them without an exponent from 0.0001 on and below 1e16, and with at least
    one digit behind the point. At most 20 bytes. NULL: anything else.
    """
    cdef Py_ssize_t place
    cdef Py_ssize_t digits = 0
    cdef Py_ssize_t point = -1
    if length and at[0] == 45:
        to[0] = 45
        to += 1
        at += 1
        length -= 1
    if length == 0 or length > 16 or not is_digit(at[0]):
        return NULL
    for place in range(length):
        if is_digit(at[place]):
            digits += 1
        elif at[place] == 46 and point < 0:
            point = place
        else:
            return NULL
        to[place] = at[place]
    if digits > 15:
        return NULL
    if at[0] == 48 and length > 1 and point != 1:  # a leading zero
        return NULL
    if point < 0:
        to[length] = 46
        to[length + 1] = 48
        return to + length + 2
    if point == length - 1 or (at[length - 1] == 48 and point != length - 2):
        return NULL
    if at[0] == 48 and length > 5 and memcmp(at, b"0.0000", 6) == 0:
        return NULL
    return to + length


cdef inline uint32_t two(const u8 *at) noexcept nogil:
    return 10 * (at[0] - 48) + at[1] - 48


cdef inline u8 *put_moment_text(u8 *to, const u8 *at, Py_ssize_t length) noexcept nogil:
    """yyyy-mm-dd, or that and hh:mm:ss with up to 9 digits of a fraction, as it is.

    NULL: another form, or no such date between the years 1 and 9999. At most 29 bytes.
    """
    cdef Py_ssize_t place
    if length != 10 and (length < 19 or length > 29 or length == 20):
        return NULL
    for place in range(length):
        if place == 4 or place == 7:
            if at[place] != 45:
                return NULL
        elif place == 10:
            if at[place] != 32:
                return NULL
        elif place == 13 or place == 16:
            if at[place] != 58:
                return NULL
        elif place == 19:
            if at[place] != 46:
                return NULL
        elif not is_digit(at[place]):
            return NULL
    if put_date(to, 100 * two(at) + two(at + 2), two(at + 5), two(at + 8)) == NULL:
        return NULL
    memcpy(to + 10, at + 10, length - 10)
    return to + length


cdef bint has_nul_escape(const u8 *at, Py_ssize_t left) noexcept nogil:
    """Does backslash, u, 0000 occur in it?"""
    cdef const u8 *end = at + left
    while end - at >= 6:
        at = <const u8 *>memchr(at, 92, end - at - 5)
        if at == NULL:
            return False
        if memcmp(at, b"\\u0000", 6) == 0:
            return True
        at += 1
    return False
