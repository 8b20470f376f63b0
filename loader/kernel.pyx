# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The row kernel: a ROWS event's bytes and a table's plan in, row changes out, compiled.

It does what `loader.rows.PythonDecoder` does, byte for byte, without making a Python
object for each value: `copytext.pxd` writes the values, this file walks the images.
Each plan is compiled once from the readers that `loader.wire` made for its columns,
so that there is one account of how a column is read; a reader that is not known here
is called. It is also called for a value that has no text (an impossible date, bytes
that are not in the charset), and so is the one that knows what is a fault.

Every value's bytes are checked to lie within the event before they are looked at.
"""

import functools
import struct

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF, PyObject
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset, strlen

from loader.copytext cimport (
    big, little, put_bits, put_date3, put_datetime2, put_datetime8, put_decimal,
    put_double, put_hex, put_integer, put_mapped, put_moment, put_time2, put_time3, put_unsigned,
    put_utf8,
)

from replicator.binlog.fence cimport fence, unfence

from loader import charsets, masking, rows, types, wire

cdef extern from "Python.h":
    object PyType_GenericAlloc(PyTypeObject *kind, Py_ssize_t length)
    char *PyOS_double_to_string(
        double number, char form, int precision, int flags, int *kind
    ) except NULL
    const int Py_DTSF_ADD_DOT_0

cdef object RowChange = rows.RowChange
cdef PyTypeObject *ROW_CHANGE = <PyTypeObject *>rows.RowChange
cdef tuple NO_FAULTS = ()

cdef Py_ssize_t BODY = 19 + 8
"""Bytes of a rows event's header: the common one, the table id and the flags."""
cdef Py_ssize_t KEPT_ROOM = 1 << 20
"""A larger buffer is given back after the event that needed it."""
cdef Py_ssize_t KEPT_COLUMNS = rows.KEPT_COLUMNS

# What becomes of a masked column's text once it is written.
cdef enum:
    BY_MASK = 1  # whatever the mask does
    TO_WORD = 2  # a word in its place, unless it is empty
    TO_NULL = 3
cdef bytes REDACTED = masking.REDACTED
cdef const char *WORD = PyBytes_AS_STRING(REDACTED)
cdef Py_ssize_t WORD_LENGTH = PyBytes_GET_SIZE(REDACTED)
cdef list NO_OWN_FAULTS = []


cdef int reserve(Text *text, Py_ssize_t more) except -1 nogil:
    """Make room for `more` bytes."""
    cdef Py_ssize_t room
    cdef void *grown
    if text.room - text.used >= more:
        return 0
    room = text.used + more + text.room // 2 + 256
    grown = realloc(text.data, room)
    if grown == NULL:
        with gil:
            raise MemoryError
    text.data = <u8 *>grown
    text.room = room
    return 0


cdef bytes whole_text(Text *text):
    return PyBytes_FromStringAndSize(<char *>text.data, text.used)


cdef object change(int operation, object key, object row, tuple faults):
    """A RowChange, made as `tuple.__new__` would, without the way there."""
    cdef object made = PyType_GenericAlloc(ROW_CHANGE, 4)
    cdef object number = operation
    Py_INCREF(number)
    PyTuple_SET_ITEM(made, 0, number)
    Py_INCREF(key)
    PyTuple_SET_ITEM(made, 1, key)
    Py_INCREF(row)
    PyTuple_SET_ITEM(made, 2, row)
    Py_INCREF(faults)
    PyTuple_SET_ITEM(made, 3, faults)
    return made


@cython.final
cdef class CompiledPlan:
    """A table's columns as the kernel reads them."""

    def __cinit__(self, plan):
        self.plan = plan
        self.readers = plan.readers
        self.masks = [None] * len(plan.readers)
        self.kept = []
        self.visible = len(plan.readers)
        self.width = len(plan.skips)
        self.bitmap = (self.width + 7) // 8
        self.key_length = len(plan.key)
        self.columns = <Column *>calloc(self.width + 1, sizeof(Column))
        self.under = <Column *>calloc(self.width + 1, sizeof(Column))
        self.key = <Py_ssize_t *>calloc(self.key_length + 1, sizeof(Py_ssize_t))
        if self.columns == NULL or self.under == NULL or self.key == NULL:
            raise MemoryError
        if not 1 <= self.visible <= self.width or max(plan.key, default=0) >= self.visible:
            self.foreign = True
            return
        for index in range(self.width):
            self._compile(index)
        self.dropping = None in plan.readers
        for place, index in enumerate(plan.key):
            self.key[place] = index
            self.columns[<Py_ssize_t>index].wanted = True
            self.behind_key = max(self.behind_key, index + 1)

    def __dealloc__(self):
        cdef Py_ssize_t index
        if self.columns != NULL:
            for index in range(self.width):
                free(self.columns[index].members)
        free(self.columns)
        free(self.under)
        free(self.key)

    cdef int _compile(self, Py_ssize_t index) except -1:
        cdef Column *column = &self.columns[index]
        column.kind = BY_READER
        column.fixed, column.prefix = self.plan.skips[index]
        if column.prefix > 8:
            self.foreign = True
        column.dropped = index >= self.visible or self.readers[index] is None
        if column.dropped:
            return 0
        column.room = 2
        reader = self.readers[index]
        schema = self.plan.schema.columns[index].type
        if masking.mask_of(self.plan.schema.columns[index]) is not None:
            self.masks[index], reader = reader.args
            column.mask = MASKS.get(self.masks[index], BY_MASK)
        if schema.base == "decimal":
            self._compile_decimal(column, schema)
        elif isinstance(reader, functools.partial):
            if reader.func is wire._string:
                self._compile_string(column, reader.args[1], schema)
            else:
                self._compile_fixed(column, reader)
        self.room += column.room + 1
        if column.mask and column.kind != BY_READER:
            self.under[index] = column[0]
            column.kind = MASKED
        return 0

    cdef int _compile_decimal(self, Column *column, schema) except -1:
        precision, scale = schema.precision, schema.scale
        if 1 <= precision <= 65 and 0 <= scale <= precision:
            if column.fixed == wire._decimal_width(precision, scale):
                column.kind, column.first, column.second = DECIMAL, precision, scale
                column.room = 128
        return 0

    cdef int _compile_fixed(self, Column *column, reader) except -1:
        """A reader made by `partial`: its arguments before (data, at, faults)."""
        function, given = reader.func, reader.args
        if function is wire._integer:
            if 1 <= given[0] <= 8 and column.fixed == given[0]:
                column.kind, column.first, column.room = INTEGER, given[1], 21
        elif function in TEMPORAL:
            kind, width = TEMPORAL[function]
            if 0 <= given[1] <= 6 and column.fixed == width + (given[1] + 1) // 2:
                column.kind, column.first, column.room = kind, given[1], 40
        elif function in PLAIN:
            kind, width = PLAIN[function]
            if column.fixed == width:
                column.kind, column.room = kind, 40
        elif function is wire._bit:
            if 1 <= given[0] <= 8 and column.fixed == given[0] and 1 <= given[1] <= 64:
                column.kind, column.first, column.room = BIT, given[1], 64
        elif function is wire._enum:
            if 1 <= given[1] <= 8 and column.fixed == given[1]:
                column.kind = ENUM
                self._take_members(column, given[2])
                column.room = max(map(len, given[2]), default=0) + 2
        elif function is wire._set:
            if 1 <= given[0] <= 8 and column.fixed == given[0] and b"" not in given[1]:
                column.kind = SET
                self._take_members(column, given[1])
                column.room = sum(map(len, given[1])) + len(given[1]) + 2
        return 0

    cdef int _take_members(self, Column *column, list members) except -1:
        cdef Py_ssize_t place
        cdef bytes member
        column.members = <Member *>calloc(len(members) + 1, sizeof(Member))
        if column.members == NULL:
            raise MemoryError
        column.count = len(members)
        for place, member in enumerate(members):
            self.kept.append(member)
            column.members[place].text = PyBytes_AS_STRING(member)
            column.members[place].length = PyBytes_GET_SIZE(member)
        return 0

    cdef int _compile_string(self, Column *column, convert, schema) except -1:
        cdef bytes table
        if not 1 <= column.prefix <= 4:
            return 0
        if convert is wire._binary:
            column.kind = BYTES
        elif isinstance(convert, functools.partial):
            if convert.func is wire._padded_binary:
                column.kind, column.first = BYTES, convert.args[0]
        elif schema.base in types.CHARACTER and charsets.is_utf8(schema.charset or ""):
            column.kind, column.first = UTF8, schema.charset == "ascii"
        elif schema.base in types.CHARACTER and schema.charset in charsets.SINGLE_BYTE_SETS:
            characters = charsets.single_byte_table(schema.charset)
            table = mapped(characters)
            self.kept.append(table)
            column.kind, column.first = MAPPED, characters[32:127] == PLAIN_ASCII
            column.table = <const u8 *>PyBytes_AS_STRING(table)
        return 0

    cdef int take(
        self, Source *source, int operation, Text *old, Text *new, list changes
    ) except -1:
        """Append the event's changes."""
        cdef Py_ssize_t at = self.body(source, operation)
        cdef list faults = []
        cdef list ignored = []
        if at > source.size:
            raise IndexError
        while at < source.size:
            if operation != INSERT:
                source.faults = <PyObject *>ignored
                at = self.key_only(source, at, old)
                if operation == DELETE:
                    changes.append(change(DELETE, self.key_text(old), None, NO_FAULTS))
                    continue
                if at == source.size:
                    raise IndexError
            source.faults = <PyObject *>faults
            at = self.whole(source, at, new)
            if operation == INSERT:
                changes.append(self.written(INSERT, new, faults))
            elif self.same_key(old, new):
                changes.append(self.written(UPDATE, new, faults))
            else:
                changes.append(change(DELETE, self.key_text(old), None, NO_FAULTS))
                changes.append(self.written(INSERT, new, faults))
            if faults:
                faults = []
        return 0

    cdef object written(self, int operation, Text *text, list faults):
        cdef bytes row = whole_text(text)
        cdef bytes key = self.key_text(text) if self.key_length else row
        return change(operation, key, row, tuple(faults) if faults else NO_FAULTS)

    cdef Py_ssize_t body(self, Source *source, int operation) except -1 nogil:
        """The first image's offset; where anything is unusual Python looks, and says what."""
        cdef Py_ssize_t at = BODY
        cdef Py_ssize_t bitmaps
        if source.data[4] >= 30:
            if source.size < BODY + 2:
                with gil:
                    return rows.PythonDecoder._body(<object>source.event, self.plan, operation)
            at += <Py_ssize_t>little(source.data + at, 2)
        bitmaps = 2 if operation == UPDATE else 1
        if not self.complete(source, at, bitmaps):
            with gil:
                return rows.PythonDecoder._body(<object>source.event, self.plan, operation)
        return at + 1 + bitmaps * self.bitmap

    cdef bint complete(self, Source *source, Py_ssize_t at, Py_ssize_t bitmaps) noexcept nogil:
        """Is the table's width at `at`, and then bitmaps that name every column?"""
        cdef Py_ssize_t bit = at + 1
        cdef Py_ssize_t place
        if self.width > 250 or bit + bitmaps * self.bitmap > source.size:
            return False
        if source.data[at] != self.width:
            return False
        for _ in range(bitmaps):
            for place in range(self.width // 8):
                if source.data[bit + place] != 0xFF:
                    return False
            for place in range(self.width & ~7, self.width):
                if not source.data[bit + (place >> 3)] >> (place & 7) & 1:
                    return False
            bit += self.bitmap
        return True

    cdef Py_ssize_t behind(self, Column *column, Source *source, Py_ssize_t at) except -1 nogil:
        """The offset behind a value that is not read, which is at most the event's end."""
        cdef uint64_t length = <uint64_t>column.fixed
        if not column.fixed:
            if source.size - at < column.prefix:
                return cut_short()
            length = little(source.data + at, column.prefix)
            at += column.prefix
        if <uint64_t>(source.size - at) < length:
            return cut_short()
        return at + <Py_ssize_t>length

    cdef Py_ssize_t whole(self, Source *source, Py_ssize_t at, Text *text) except -1 nogil:
        """Write the image at `at`; the offset behind it."""
        cdef Py_ssize_t nulls = at
        cdef Py_ssize_t index
        cdef Column *column = self.columns
        if source.size - at < self.bitmap:
            return cut_short()
        at += self.bitmap
        text.used = 0
        reserve(text, self.room)
        if self.dropping:
            return self.whole_but_dropped(source, nulls, at, text)
        for index in range(self.visible):
            if index:
                text.data[text.used] = 9
                text.used += 1
            if source.data[nulls + (index >> 3)] >> (index & 7) & 1:
                put_null(text, index)
            else:
                at = self.field(column, index, source, at, text)
            column += 1
        for index in range(self.visible, self.width):
            if not source.data[nulls + (index >> 3)] >> (index & 7) & 1:
                at = self.behind(&self.columns[index], source, at)
        return at

    cdef Py_ssize_t whole_but_dropped(
        self, Source *source, Py_ssize_t nulls, Py_ssize_t at, Text *text
    ) except -1 nogil:
        """`whole` of a table with columns that are dropped: their values are stepped over."""
        cdef Py_ssize_t index
        cdef bint behind_another = False
        for index in range(self.width):
            if self.columns[index].dropped:
                if not source.data[nulls + (index >> 3)] >> (index & 7) & 1:
                    at = self.behind(&self.columns[index], source, at)
                continue
            if behind_another:
                text.data[text.used] = 9
                text.used += 1
            behind_another = True
            if source.data[nulls + (index >> 3)] >> (index & 7) & 1:
                put_null(text, index)
            else:
                at = self.field(&self.columns[index], index, source, at, text)
        return at

    cdef Py_ssize_t key_only(self, Source *source, Py_ssize_t at, Text *text) except -1 nogil:
        """Write the key columns of the image at `at`, in column order; the offset behind it."""
        cdef Py_ssize_t nulls = at
        cdef Py_ssize_t index
        if not self.key_length:
            return self.whole(source, at, text)
        if source.size - at < self.bitmap:
            return cut_short()
        at += self.bitmap
        text.used = 0
        reserve(text, self.room)
        for index in range(self.width):
            if source.data[nulls + (index >> 3)] >> (index & 7) & 1:
                if self.columns[index].wanted:
                    put_null(text, index)
            elif self.columns[index].wanted:
                at = self.field(&self.columns[index], index, source, at, text)
            else:
                at = self.behind(&self.columns[index], source, at)
        return at

    cdef Py_ssize_t field(
        self, Column *column, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1 nogil:
        """Write one value; the offset behind it. There is room for what is fixed in length.

        `column` is the index's own, or it is from `under`: then 0 where the value has no text.
        """
        cdef Py_ssize_t behind = self.behind(column, source, at)
        cdef Py_ssize_t start = text.used
        cdef u8 *to
        if column.kind <= MASKED:
            return self.unusual_field(index, source, at, text)
        if column.fixed:
            to = put_fixed(column, source.data + at, text.data + start)
        else:
            at += column.prefix
            to = put_string(
                column, source.data + at, behind - at, source.size - at, text, self.room
            )
            at -= column.prefix
        if to == NULL:
            if column.mask:
                return 0
            with gil:
                return self.by_reader(index, source, at, text)
        text.used = to - text.data
        text.spans[index].start = start
        text.spans[index].end = text.used
        return behind

    cdef Py_ssize_t unusual_field(
        self, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1 nogil:
        """`field` of a column that Python reads, or that is masked."""
        cdef Py_ssize_t start = text.used
        cdef Py_ssize_t behind
        if self.columns[index].kind == MASKED:
            behind = self.field(&self.under[index], index, source, at, text)
            if behind:
                self.mask(index, source, text, start)
                return behind
        with gil:
            return self.by_reader(index, source, at, text)

    cdef int mask(
        self, Py_ssize_t index, Source *source, Text *text, Py_ssize_t start
    ) except -1 nogil:
        """Put what a column's mask makes of its text, which begins at `start`, in its place."""
        cdef int masked = self.columns[index].mask
        if masked == TO_NULL:
            text.used = start
            put_null(text, index)
            return 0
        if masked == TO_WORD:
            if text.used > start:
                text.used = start
                reserve(text, WORD_LENGTH + self.room)
                memcpy(text.data + start, WORD, WORD_LENGTH)
                text.used = start + WORD_LENGTH
            text.spans[index].start = start
            text.spans[index].end = text.used
            return 0
        with gil:
            return self.mask_by_python(index, source, text, start)

    cdef int mask_by_python(
        self, Py_ssize_t index, Source *source, Text *text, Py_ssize_t start
    ) except -1:
        cdef bytes value = self.masks[index](
            PyBytes_FromStringAndSize(<char *>text.data + start, text.used - start),
            NO_OWN_FAULTS,
            <object>source.faults,
        )
        text.used = start
        if value is None:
            put_null(text, index)
            return 0
        reserve(text, PyBytes_GET_SIZE(value) + self.room)
        memcpy(text.data + start, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        text.used += PyBytes_GET_SIZE(value)
        text.spans[index].start = start
        text.spans[index].end = text.used
        return 0

    cdef Py_ssize_t by_reader(
        self, Py_ssize_t index, Source *source, Py_ssize_t at, Text *text
    ) except -1:
        """Write a value with its column's Python reader, which also notes what is at fault."""
        cdef Py_ssize_t behind
        cdef bytes value
        value, behind = self.readers[index](<object>source.event, at, <object>source.faults)
        if behind > source.size:
            raise IndexError
        if value is None:
            put_null(text, index)
            return behind
        reserve(text, PyBytes_GET_SIZE(value) + self.room)
        memcpy(text.data + text.used, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        text.spans[index].start = text.used
        text.used += PyBytes_GET_SIZE(value)
        text.spans[index].end = text.used
        return behind

    cdef bint has_key(self, Text *text) noexcept nogil:
        cdef Py_ssize_t place
        for place in range(self.key_length):
            if text.spans[self.key[place]].end < text.spans[self.key[place]].start:
                return False
        return True

    cdef Py_ssize_t key_size(self, Text *text) noexcept nogil:
        """Bytes of the key's text; `has_key` must hold."""
        cdef Py_ssize_t place
        cdef Py_ssize_t total = self.key_length - 1
        for place in range(self.key_length):
            total += text.spans[self.key[place]].end - text.spans[self.key[place]].start
        return total

    cdef void put_key(self, Text *text, u8 *to) noexcept nogil:
        """Write the key's columns in key order, `key_size` bytes."""
        cdef Py_ssize_t place
        cdef Py_ssize_t length
        cdef Span *span
        for place in range(self.key_length):
            if place:
                to[0] = 9
                to += 1
            span = &text.spans[self.key[place]]
            length = span.end - span.start
            memcpy(to, text.data + span.start, length)
            to += length

    cdef bytes key_text(self, Text *text):
        """The key's columns in key order; None where one is NULL. Without a key, the row."""
        cdef bytes made
        if not self.key_length:
            return whole_text(text)
        if not self.has_key(text):
            return None
        made = PyBytes_FromStringAndSize(NULL, self.key_size(text))
        self.put_key(text, <u8 *>PyBytes_AS_STRING(made))
        return made

    cdef bint same_key(self, Text *one, Text *other) noexcept nogil:
        """Is it the same row to PostgreSQL? Rows without a key are never so."""
        cdef Py_ssize_t place
        cdef Py_ssize_t length
        cdef Span *left
        cdef Span *right
        if not self.key_length:
            return False
        if not (self.has_key(one) and self.has_key(other)):
            return self.has_key(one) == self.has_key(other)
        for place in range(self.key_length):
            left = &one.spans[self.key[place]]
            right = &other.spans[self.key[place]]
            length = left.end - left.start
            if length != right.end - right.start:
                return False
            if memcmp(one.data + left.start, other.data + right.start, length):
                return False
        return True


cdef Py_ssize_t cut_short() except -1 nogil:
    """The event ends before what its table map promises."""
    with gil:
        raise IndexError


cdef inline void put_null(Text *text, Py_ssize_t index) noexcept nogil:
    """There is room: each column has at least two bytes of it."""
    text.data[text.used] = 92
    text.data[text.used + 1] = 78
    text.spans[index].start = text.used
    text.spans[index].end = text.used - 1
    text.used += 2


cdef u8 *put_fixed(Column *column, const u8 *at, u8 *to) except? NULL nogil:
    """A value with a fixed length; NULL without an exception where it has no text."""
    cdef Kind kind = column.kind
    cdef float single
    cdef double number
    if kind == INTEGER:
        return put_integer(to, at, <int>column.fixed, column.first)
    elif kind == YEAR:
        return put_unsigned(to, at[0] + 1900 if at[0] else 0)
    elif kind == DOUBLE:
        memcpy(&number, at, 8)
        return put_number(to, number)
    elif kind == FLOAT:
        memcpy(&single, at, 4)
        return put_number(to, single)
    elif kind == DECIMAL:
        return put_decimal(to, at, column.first, column.second)
    elif kind == DATE:
        return put_date3(to, at)
    elif kind == DATETIME2:
        return put_datetime2(to, at, column.first)
    elif kind == TIMESTAMP2:
        return put_moment(
            to, <uint32_t>big(at, 4), big(at + 4, (column.first + 1) // 2), column.first
        )
    elif kind == TIME2:
        return put_time2(to, at, column.first)
    elif kind == BIT:
        return put_bits(to, big(at, column.fixed), column.first)
    elif kind == ENUM:
        return put_enum(column, little(at, column.fixed), to)
    elif kind == SET:
        return put_set(column, little(at, column.fixed), to)
    elif kind == OLD_DATETIME:
        return put_datetime8(to, at)
    elif kind == OLD_TIMESTAMP:
        return put_moment(to, <uint32_t>little(at, 4), 0, 0)
    elif kind == OLD_TIME:
        return put_time3(to, at)
    return NULL


cdef u8 *put_number(u8 *to, double number) except NULL nogil:
    """A double as `repr` writes it."""
    cdef u8 *behind = put_double(to, number)
    cdef char *text
    cdef size_t length
    if behind != NULL:
        return behind
    with gil:
        text = PyOS_double_to_string(number, 114, 0, Py_DTSF_ADD_DOT_0, NULL)
        length = strlen(text)
        memcpy(to, text, length)
        PyMem_Free(text)
    return to + length


cdef inline u8 *put_enum(Column *column, uint64_t number, u8 *to) noexcept nogil:
    cdef Member *member
    if number == 0:
        return to
    if number > <uint64_t>column.count:
        return NULL
    member = &column.members[number - 1]
    memcpy(to, member.text, member.length)
    return to + member.length


cdef inline u8 *put_set(Column *column, uint64_t chosen, u8 *to) noexcept nogil:
    cdef Py_ssize_t place
    cdef u8 *start = to
    for place in range(min(column.count, 64)):
        if chosen >> place & 1:
            if to != start:
                to[0] = 44
                to += 1
            memcpy(to, column.members[place].text, column.members[place].length)
            to += column.members[place].length
    return to


cdef u8 *put_string(
    Column *column, const u8 *at, Py_ssize_t length, Py_ssize_t readable, Text *text,
    Py_ssize_t room,
) except? NULL nogil:
    """A value of any length behind what `text` holds, and `room` left behind it."""
    cdef Py_ssize_t padding
    if column.kind == UTF8:
        reserve(text, 2 * length + 8 + room)
        return put_utf8(text.data + text.used, at, length, readable, column.first)
    elif column.kind == MAPPED:
        reserve(text, 3 * length + 8 + room)
        return put_mapped(
            text.data + text.used, at, length, readable, column.table, column.first
        )
    padding = column.first - length if column.first > length else 0
    reserve(text, 3 + 2 * (length + padding) + room)
    return put_bytea(text.data + text.used, at, length, padding)


cdef inline u8 *put_bytea(u8 *to, const u8 *at, Py_ssize_t length, Py_ssize_t padding) noexcept nogil:
    memcpy(to, b"\\\\x", 3)
    to = put_hex(to + 3, at, length)
    memset(to, 48, 2 * padding)
    return to + 2 * padding


cdef dict MASKS = {masking.redacted: TO_WORD, masking.nothing: TO_NULL}
# What wire's readers are here, and the bytes that they read (without a fraction's).
cdef dict PLAIN = {
    wire._year: (YEAR, 1),
    wire._float: (FLOAT, 4),
    wire._double: (DOUBLE, 8),
    wire._date: (DATE, 3),
    wire._old_time: (OLD_TIME, 3),
    wire._old_datetime: (OLD_DATETIME, 8),
    wire._old_timestamp: (OLD_TIMESTAMP, 4),
}
cdef str PLAIN_ASCII = "".join(map(chr, range(32, 127)))
cdef dict TEMPORAL = {
    wire._timestamp2: (TIMESTAMP2, 4),
    wire._datetime2: (DATETIME2, 5),
    wire._time2: (TIME2, 3),
}


cdef bytes mapped(str table):
    """A single-byte set's 256 characters as `put_mapped` wants them."""
    cdef list entries = []
    for character in table:
        # U+FFFE: no such character. NUL: a fault in PostgreSQL's text.
        text = b"" if character in "\ufffe\0" else wire.escaped(character.encode())
        entries.append(text.ljust(3, b"\0") + bytes([len(text)]))
    return b"".join(entries)


@cython.final
cdef class KernelDecoder:
    """The compiled `RowDecoder`."""

    cdef dict _plans
    cdef Py_ssize_t _held  # their columns
    cdef CompiledPlan _last
    cdef Text _old
    cdef Text _new

    def __cinit__(self):
        self._plans = {}

    def __dealloc__(self):
        free(self._old.data)
        free(self._new.data)

    def decode(self, bytes event not None, plan):
        """See `RowDecoder`."""
        cdef CompiledPlan compiled = self._compiled(plan)
        cdef Source source
        cdef Text old
        cdef Text new
        cdef list changes = []
        cdef int operation
        source.size = PyBytes_GET_SIZE(event)
        if source.size < 5:
            raise rows.malformed(plan.table)
        operation = operation_of(<u8>PyBytes_AS_STRING(event)[4])
        if operation < 0 or compiled.foreign or source.size < BODY:
            return rows.PythonDecoder().decode(event, plan)
        source.event = <PyObject *>event
        source.data = fence(PyBytes_AS_STRING(event), source.size)
        lend(&self._old, &old, compiled.width)
        lend(&self._new, &new, compiled.width)
        try:
            if source.data == NULL or old.spans == NULL or new.spans == NULL:
                raise MemoryError
            compiled.take(&source, operation, &old, &new, changes)
        except (IndexError, struct.error) as error:
            raise rows.malformed(plan.table) from error
        finally:
            unfence(source.data)
            give_back(&old, &self._old)
            give_back(&new, &self._new)
        return changes

    cdef CompiledPlan _compiled(self, plan):
        cdef CompiledPlan found = self._last
        if found is not None and found.plan is plan:
            return found
        found = self._plans.get(id(plan))
        if found is None:
            found = CompiledPlan(plan)  # keeps the plan, and so its id
            self._held += found.width
            if self._held > KEPT_COLUMNS:
                self._plans.clear()
                self._held = found.width
            self._plans[id(plan)] = found
        self._last = found
        return found


cdef int operation_of(u8 kind) noexcept nogil:
    """What an event of this type does; below 0 where it is none of the six rows events."""
    if 23 <= kind <= 25:
        return kind - 23
    return kind - 30 if 30 <= kind <= 32 else -1


cdef void lend(Text *kept, Text *lent, Py_ssize_t width) noexcept nogil:
    """Hand a buffer over, so that whoever decodes meanwhile makes one of its own."""
    lent[0] = kept[0]
    kept.data = NULL
    kept.room = 0
    lent.used = 0
    lent.spans = <Span *>calloc(width + 1, sizeof(Span))


cdef void give_back(Text *lent, Text *kept) noexcept nogil:
    free(lent.spans)
    if kept.data == NULL and lent.room <= KEPT_ROOM:
        kept.data = lent.data
        kept.room = lent.room
    else:
        free(lent.data)
