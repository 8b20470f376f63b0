# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of the binary protocol in, the row images of one WRITE_ROWS event out, compiled.

It does what `rowimage.RowImageEncoder` does with the text protocol's rows, byte for byte,
without making a Python object for each value. `rowplan` says how each column comes and how
it is stored; a column that this file does not know is handed to its Python encoder.

Every value's bytes are checked to lie within its row's packet before they are looked at, and
each row's images are bounded before they are written: all that one value can make is its own
bytes, a length in front, and at most `SLACK` more.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from replicator.binlog.fence cimport fence, unfence

from config.errors import SchemaDrift

ctypedef uint8_t u8

# Kinds of storing; `rowplan.Stored` has the same numbers.
cdef enum:
    COPIED = 0        # a: bytes of the wire's little-endian value that are stored
    NUMBERED = 1      # a: bytes; an integer that must fit into them, unsigned
    DECIMAL = 2       # a: precision, b: scale; printed
    FIXED = 3         # a: bytes; as it is, always so long
    YEAR = 4
    DATE = 5
    DATETIME = 6      # a: digits of the fraction
    SECONDS = 7       # a: digits of the fraction; an integer, or printed
    TIME = 8          # a: digits of the fraction
    PREFIXED = 9      # a: bytes of the length in front, b: most bytes, c: flags
    CALLED = 10       # by the Python encoder
    SIGN = 11         # not stored: is the FLOATING value behind it a zero below zero?
    FLOATING = 12     # a: bytes

cdef enum:
    ZEROS_STRIPPED = 1
    MARKED_PLAIN = 2

cdef enum:
    SLACK = 48        # a TIME takes 6, a DECIMAL 30 whatever was printed, a length 4, a mark 1
    EVENT_LENGTH = 9
    MOST_FRACTION = 6
    OUT_OF_MEMORY = -3
    MISSHAPEN = -2
    CALL_FAILED = -4
    FITS = -1         # else the index of the column whose value does not fit

cdef u8 DECIMAL_BYTES[10]
DECIMAL_BYTES[:] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
cdef uint32_t POWERS[7]
POWERS[:] = [1, 10, 100, 1000, 10000, 100000, 1000000]
cdef Py_ssize_t MOST_EVENT = 0x7FFFFFFF


cdef struct Column:
    int kind
    int a
    int b
    int c
    int wire          # bytes of a fixed value; 0: length-encoded; -1: a moment


cdef struct Output:
    u8 *data
    Py_ssize_t size
    Py_ssize_t room


cdef class RowKernel:
    """One table's compiled plan; `encode` may be called by one thread at a time."""

    cdef Column *columns
    cdef int count
    cdef int fields
    cdef int bitmap_bytes
    cdef int tail_bytes
    cdef int width
    cdef Output out
    cdef str table
    cdef tuple names
    cdef tuple encoders
    cdef object failure

    def __cinit__(self):
        self.columns = NULL
        self.out.data = NULL
        self.out.size = self.out.room = 0

    def __init__(self, str table, list plan, int hidden_hashes):
        """`plan` holds for each column its name, wire type, kind, three numbers and encoder."""
        cdef int at
        if self.columns != NULL:
            raise ValueError("made already")
        self.table = table
        self.count = len(plan)
        if not 0 < self.count <= 4096 or not 0 <= hidden_hashes <= 128:
            raise ValueError("not a table's shape")
        self.columns = <Column *>calloc(self.count, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        self.fields = sum(one[2] != SIGN for one in plan)
        self.width = self.fields + hidden_hashes
        self.bitmap_bytes = (self.width + 7) // 8
        self.tail_bytes = 8 * hidden_hashes
        self.names = tuple(str(one[0]) for one in plan)
        self.encoders = tuple(one[6] for one in plan)
        for at in range(self.count):
            _, wire, kind, a, b, c, _ = plan[at]
            self.columns[at] = checked(wire, kind, a, b, c)
            if at and plan[at - 1][2] == SIGN and kind != FLOATING:
                raise ValueError("a sign without its number")
        if self.columns[self.count - 1].kind == SIGN:
            raise ValueError("a sign without its number")

    def __dealloc__(self):
        free(self.columns)
        free(self.out.data)

    def encode(self, bytes block not None, bytes head not None):
        """The event that `head` begins, with all rows of `block`; their number; the last's place.

        `block` is as `ResultSet.blocks` gives it; the place is that of the row's payload.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(block), last = 0, rows = 0
        cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head)
        cdef const u8 *data
        cdef int fault
        if head_size < 19:
            raise ValueError("not the head of an event")
        data = fence(PyBytes_AS_STRING(block), size)
        if data == NULL:
            raise MemoryError
        self.out.size = 0
        self.failure = None
        try:
            if not reserve(&self.out, head_size + size + SLACK):
                raise MemoryError
            memcpy(self.out.data, PyBytes_AS_STRING(head), head_size)
            self.out.size = head_size
            with nogil:
                fault = self.walk(data, size, &last, &rows)
            if fault != FITS:
                self.complain(fault)
            if self.out.size > MOST_EVENT:
                raise self.misfit("a row is too large for an event")
            put_little(self.out.data + EVENT_LENGTH, <uint64_t>self.out.size, 4)
            return PyBytes_FromStringAndSize(<char *>self.out.data, self.out.size), rows, last
        finally:
            unfence(data)
            if self.out.room > 8 << 20:  # one large row's; others need none of it
                free(self.out.data)
                self.out.data = NULL
                self.out.room = 0

    cdef int walk(
        self, const u8 *data, Py_ssize_t size, Py_ssize_t *last, Py_ssize_t *rows
    ) noexcept nogil:
        """Encode packet after packet."""
        cdef Py_ssize_t at = 0, length
        cdef int fault
        while at < size:
            if size - at < 4:
                return MISSHAPEN
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            at += 4
            if length == 0xFFFFFF and at == 4:
                length = size - at
            if length > size - at:
                return MISSHAPEN
            last[0] = at
            fault = self.row(data + at, length)
            if fault != FITS:
                return fault
            rows[0] += 1
            at += length
        return FITS

    cdef int row(self, const u8 *data, Py_ssize_t size) noexcept nogil:
        """Append the image of the row that is `data`."""
        cdef Py_ssize_t nulls_bytes = (self.count + 9) // 8, at, value, length
        cdef const u8 *nulls = data + 1
        cdef u8 *bitmap
        cdef Py_ssize_t bitmap_at
        cdef int column, wire, fault, bit = -1
        cdef bint negative = False
        if size < 1 + nulls_bytes or data[0] != 0:
            return MISSHAPEN
        at = 1 + nulls_bytes
        if not reserve(
            &self.out, size + self.bitmap_bytes + self.tail_bytes + <Py_ssize_t>self.count * SLACK
        ):
            return OUT_OF_MEMORY
        bitmap_at = self.out.size
        bitmap = self.out.data + bitmap_at
        memset(bitmap, 0, self.bitmap_bytes)
        if self.width % 8:
            bitmap[self.bitmap_bytes - 1] = <u8>(0xFF << (self.width % 8))
        self.out.size += self.bitmap_bytes
        for column in range(self.count):
            bit += self.columns[column].kind != SIGN
            if nulls[(column + 2) >> 3] >> ((column + 2) & 7) & 1:
                # A called encoder may have moved the output since.
                if self.columns[column].kind == SIGN:
                    return column
                self.out.data[bitmap_at + (bit >> 3)] |= <u8>(1 << (bit & 7))
                negative = False
                continue
            wire = self.columns[column].wire
            if wire > 0:
                length = wire
            elif wire < 0:
                if at >= size:
                    return MISSHAPEN
                length = data[at]
                at += 1
            else:
                length = length_encoded(data, size, &at)
                if length < 0:
                    return MISSHAPEN
            if length > size - at:
                return MISSHAPEN
            if self.columns[column].kind == CALLED:
                fault = self.call(column, data + at, length, size - at)
                if fault != FITS:
                    return fault
            elif self.columns[column].kind == SIGN:
                negative = data[at] != 0
            elif self.columns[column].kind == FLOATING:
                put_floating(data + at, self.columns[column].a, negative, &self.out)
                negative = False
            elif not self.put(&self.columns[column], data + at, length):
                return column
            at += length
        if at != size:
            return MISSHAPEN
        memset(self.out.data + self.out.size, 0, self.tail_bytes)
        self.out.size += self.tail_bytes
        return FITS

    cdef bint put(self, Column *column, const u8 *value, Py_ssize_t length) noexcept nogil:
        """Append one value; False where it does not fit its column."""
        cdef u8 *to = self.out.data + self.out.size
        cdef Py_ssize_t made
        cdef int kind = column.kind
        if kind == COPIED:
            made = column.a
            memcpy(to, value, made)
        elif kind == PREFIXED:
            made = put_prefixed(column, value, length, to)
        elif kind == DATE:
            made = put_date(value, length, to)
        elif kind == DATETIME:
            made = put_datetime(value, length, column.a, to)
        elif kind == DECIMAL:
            made = put_decimal(value, length, column.a, column.b, to)
        elif kind == NUMBERED:
            made = put_numbered(value, column.wire, column.a, to)
        elif kind == FIXED:
            made = length if length == column.a else -1
            if made >= 0:
                memcpy(to, value, made)
        elif kind == YEAR:
            made = put_year(value, to)
        elif kind == SECONDS:
            made = put_seconds(column, value, length, to)
        elif kind == TIME:
            made = put_time(value, length, column.a, to)
        else:
            made = -1
        if made < 0:
            return False
        self.out.size += made
        return True

    cdef int call(
        self, int column, const u8 *value, Py_ssize_t length, Py_ssize_t unread
    ) noexcept with gil:
        """Let the column's own encoder make the value."""
        cdef bytes made
        try:
            made = self.encoders[column](PyBytes_FromStringAndSize(<const char *>value, length))
        except (ValueError, IndexError, OverflowError, OSError):
            return column
        except BaseException as failure:
            self.failure = failure
            return CALL_FAILED
        if not reserve(
            &self.out,
            PyBytes_GET_SIZE(made) + unread + self.tail_bytes + <Py_ssize_t>self.count * SLACK,
        ):
            return OUT_OF_MEMORY
        memcpy(self.out.data + self.out.size, PyBytes_AS_STRING(made), PyBytes_GET_SIZE(made))
        self.out.size += PyBytes_GET_SIZE(made)
        return FITS

    cdef complain(self, int fault):
        if fault == OUT_OF_MEMORY:
            raise MemoryError
        if fault == CALL_FAILED:
            failure, self.failure = self.failure, None
            raise failure
        if fault >= 0:
            raise self.misfit(
                f"a value does not fit column {self.table}.{self.names[fault]} of the replica"
            )
        raise self.misfit(f"a row does not fit table {self.table} of the replica")

    cdef misfit(self, str message):
        return SchemaDrift(message)


cdef Column checked(int wire, int kind, int a, int b, int c) except *:
    """A column whose numbers keep every write within `SLACK` and every read within its value."""
    cdef Column column
    column.kind, column.a, column.b, column.c = kind, a, b, c
    column.wire = wire_bytes(wire)
    cdef bint good
    if kind == COPIED:
        good = 0 < a <= column.wire
    elif kind == FLOATING:
        good = column.wire == a and a in (4, 8)
    elif kind == SIGN:
        good = column.wire in (4, 8)
    elif kind == NUMBERED:
        good = 0 < a <= 8 and column.wire > 0
    elif kind == DECIMAL:
        good = 0 < a <= 65 and 0 <= b <= 38 and b <= a and column.wire == 0
    elif kind == FIXED:
        good = a >= 0 and column.wire == 0
    elif kind == YEAR:
        good = column.wire == 2
    elif kind in (DATE, DATETIME, TIME):
        good = 0 <= a <= MOST_FRACTION and column.wire == -1
    elif kind == SECONDS:
        good = 0 <= a <= MOST_FRACTION and (
            column.wire == 0 if a else column.wire in (4, 8)
        )
    elif kind == PREFIXED:
        good = 0 < a <= 4 and b >= 0 and column.wire == 0
    else:
        good = kind == CALLED
    if not good:
        raise ValueError("not a way to store a column")
    return column


cdef int wire_bytes(int wire) noexcept:
    """How a value of the protocol's type stands in a row: its size, or 0 or -1."""
    if wire == 1:
        return 1
    if wire in (2, 13):
        return 2
    if wire in (3, 4, 9):
        return 4
    if wire in (5, 8):
        return 8
    if wire in (7, 10, 11, 12):
        return -1
    return 0


cdef bint reserve(Output *out, Py_ssize_t more) noexcept nogil:
    """Have room for `more` bytes behind what is there."""
    cdef Py_ssize_t room = out.size + more
    cdef u8 *data
    if more < 0 or room < out.size:
        return False
    if room <= out.room:
        return True
    room += room >> 3
    data = <u8 *>realloc(out.data, room)
    if data == NULL:
        return False
    out.data = data
    out.room = room
    return True


cdef Py_ssize_t length_encoded(const u8 *data, Py_ssize_t size, Py_ssize_t *at) noexcept nogil:
    """The length at `at`, which moves behind it; -1 where there is none."""
    cdef Py_ssize_t place = at[0]
    cdef int first, more
    cdef uint64_t length
    if place >= size:
        return -1
    first = data[place]
    if first < 0xFB:
        at[0] = place + 1
        return first
    more = 2 if first == 0xFC else 3 if first == 0xFD else 8 if first == 0xFE else 0
    if more == 0 or size - place - 1 < more:
        return -1
    length = little(data + place + 1, more)
    at[0] = place + 1 + more
    return <Py_ssize_t>length if length <= <uint64_t>size else -1


cdef inline uint64_t little(const u8 *data, int size) noexcept nogil:
    cdef uint64_t number = 0
    while size > 0:
        size -= 1
        number = number << 8 | data[size]
    return number


cdef inline void put_little(u8 *to, uint64_t number, int size) noexcept nogil:
    cdef int at
    for at in range(size):
        to[at] = <u8>(number >> (8 * at))


cdef inline void put_big(u8 *to, uint64_t number, int size) noexcept nogil:
    cdef int at
    for at in range(size):
        to[at] = <u8>(number >> (8 * (size - 1 - at)))


cdef Py_ssize_t put_prefixed(
    Column *column, const u8 *value, Py_ssize_t length, u8 *to
) noexcept nogil:
    """Bytes behind their length."""
    cdef bint marked = column.c & MARKED_PLAIN and length > 0
    if column.c & ZEROS_STRIPPED:
        while length > 0 and value[length - 1] == 0:
            length -= 1
    if length + marked > <uint32_t>column.b:
        return -1
    put_little(to, length + marked, column.a)
    to += column.a
    if marked:
        to[0] = 0
        to += 1
    memcpy(to, value, length)
    return column.a + marked + length


cdef Py_ssize_t put_numbered(const u8 *value, int wire, int size, u8 *to) noexcept nogil:
    cdef uint64_t number = little(value, wire)
    if size < 8 and number >> (8 * size):
        return -1
    put_little(to, number, size)
    return size


cdef void put_floating(const u8 *value, int size, bint negative, Output *out) noexcept nogil:
    """A number as it is; servers send each zero as one above zero."""
    cdef u8 *to = out.data + out.size
    memcpy(to, value, size)
    if negative and little(value, size) == 0:
        to[size - 1] = 0x80
    out.size += size


cdef Py_ssize_t put_year(const u8 *value, u8 *to) noexcept nogil:
    cdef uint64_t year = little(value, 2)
    if year and not 1900 <= year <= 2155:
        return -1
    to[0] = <u8>(year - 1900) if year else 0
    return 1


cdef bint read_day(
    const u8 *value, Py_ssize_t length, uint32_t *year, uint32_t *month, uint32_t *day
) noexcept nogil:
    """A moment's date; a value of no bytes is all zeros."""
    year[0] = month[0] = day[0] = 0
    if length == 0:
        return True
    if length != 4 and length != 7 and length != 11:
        return False
    year[0] = value[0] | value[1] << 8
    month[0] = value[2]
    day[0] = value[3]
    return year[0] <= 9999 and month[0] <= 12 and day[0] <= 31


cdef Py_ssize_t put_date(const u8 *value, Py_ssize_t length, u8 *to) noexcept nogil:
    cdef uint32_t year, month, day
    cdef Py_ssize_t at
    if not read_day(value, length, &year, &month, &day):
        return -1
    for at in range(4, length):
        if value[at]:
            return -1
    put_little(to, day | month << 5 | year << 9, 3)
    return 3


cdef Py_ssize_t put_fraction(uint32_t micros, int digits, u8 *to) noexcept nogil:
    """The fraction's own bytes; micros beyond what its digits hold do not fit."""
    cdef int size = (digits + 1) // 2
    if micros > 999999 or micros % POWERS[6 - digits]:
        return -1
    put_big(to, micros // POWERS[6 - 2 * size], size)
    return size


cdef Py_ssize_t put_datetime(
    const u8 *value, Py_ssize_t length, int digits, u8 *to
) noexcept nogil:
    cdef uint32_t year, month, day, clock = 0, micros = 0
    cdef Py_ssize_t made
    if not read_day(value, length, &year, &month, &day):
        return -1
    if length >= 7:
        if value[4] > 23 or value[5] > 59 or value[6] > 59:
            return -1
        clock = value[4] << 12 | value[5] << 6 | value[6]
    if length == 11:
        micros = <uint32_t>little(value + 7, 4)
    put_big(
        to,
        <uint64_t>0x8000000000 | <uint64_t>((year * 13 + month) << 5 | day) << 17 | clock,
        5,
    )
    made = put_fraction(micros, digits, to + 5)
    return -1 if made < 0 else 5 + made


cdef Py_ssize_t put_time(const u8 *value, Py_ssize_t length, int digits, u8 *to) noexcept nogil:
    cdef uint64_t hours = 0, packed, middle
    cdef uint32_t clock = 0, micros = 0
    cdef int size = (digits + 1) // 2
    cdef bint negative = False
    cdef u8 fraction[4]
    if length != 0 and length != 8 and length != 12:
        return -1
    if length:
        negative = value[0] != 0
        hours = little(value + 1, 4) * 24 + value[5]
        if hours > 838 or value[6] > 59 or value[7] > 59:
            return -1
        clock = <uint32_t>hours << 12 | value[6] << 6 | value[7]
    if length == 12:
        micros = <uint32_t>little(value + 8, 4)
    if put_fraction(micros, digits, fraction) < 0:
        return -1
    packed = clock
    if size:
        packed = packed << (8 * size) | micros // POWERS[6 - 2 * size]
    middle = <uint64_t>0x800000 << (8 * size)
    put_big(to, middle - packed if negative else middle + packed, 3 + size)
    return 3 + size


cdef Py_ssize_t put_seconds(
    Column *column, const u8 *value, Py_ssize_t length, u8 *to
) noexcept nogil:
    """A TIMESTAMP's seconds since 1970: an integer, or digits, a point and digits."""
    cdef uint64_t seconds = 0
    cdef uint32_t micros = 0
    cdef int digits = 0
    cdef Py_ssize_t at = 0, made
    if column.wire > 0:
        seconds = little(value, column.wire)
    else:
        while at < length and value[at] != c'.':
            if not c'0' <= value[at] <= c'9' or at > 10:
                return -1
            seconds = seconds * 10 + value[at] - c'0'
            at += 1
        if at == 0:
            return -1
        for at in range(at + 1, length):
            if not c'0' <= value[at] <= c'9' or digits >= 6:
                return -1
            if digits < column.a:
                micros = micros * 10 + value[at] - c'0'
                digits += 1
        micros *= POWERS[6 - digits]
    if seconds >> 32:
        return -1
    put_big(to, seconds, 4)
    made = put_fraction(micros, column.a, to + 4)
    return -1 if made < 0 else 4 + made


cdef Py_ssize_t put_decimal(
    const u8 *value, Py_ssize_t length, int precision, int scale, u8 *to
) noexcept nogil:
    """Groups of nine digits, big-endian, the first bit flipped, all if negative."""
    cdef u8 digits[65]
    cdef int whole = precision - scale, at, group, left, right, made = 0
    cdef Py_ssize_t place = 0, point, end, number_at
    cdef bint negative = length > 0 and value[0] == c'-', nonzero = False
    cdef uint32_t number
    if negative:
        place = 1
    point = place
    while point < length and value[point] != c'.':
        point += 1
    while place < point and value[place] == c'0':
        place += 1
    end = length - point - 1 if point < length else 0
    if point - place > whole or end > scale:
        return -1
    memset(digits, 0, 65)
    left = whole - <int>(point - place)
    for number_at in range(place, point):
        if not c'0' <= value[number_at] <= c'9':
            return -1
        digits[left + number_at - place] = value[number_at] - c'0'
        nonzero |= value[number_at] != c'0'
    for number_at in range(end):
        if not c'0' <= value[point + 1 + number_at] <= c'9':
            return -1
        digits[whole + number_at] = value[point + 1 + number_at] - c'0'
        nonzero |= value[point + 1 + number_at] != c'0'
    at = 0
    while at < precision:
        left = whole - at
        right = precision - at
        if left > 0:
            group = left % 9 if left % 9 else 9
        else:
            group = 9 if right >= 9 else right
        number = 0
        for number_at in range(at, at + group):
            number = number * 10 + digits[number_at]
        put_big(to + made, number, DECIMAL_BYTES[group])
        made += DECIMAL_BYTES[group]
        at += group
    if negative and nonzero:
        for at in range(made):
            to[at] ^= 0xFF
    to[0] ^= 0x80
    return made


# --- statements --------------------------------------------------------------------------

cdef u8 PAIRS[8192]


cdef fill_pairs():
    cdef bytes letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int at
    for at in range(4096):
        PAIRS[2 * at] = letters[at >> 6]
        PAIRS[2 * at + 1] = letters[at & 63]


fill_pairs()


def in_base64(
    bytes data not None, Py_ssize_t start, Py_ssize_t end, bytes head not None, bytes tail not None
):
    """`head`, then what `data` holds from `start` to `end` in base64, then `tail`."""
    if start < 0 or end < start or end > PyBytes_GET_SIZE(data):
        raise IndexError("outside the data")
    cdef Py_ssize_t size = end - start, before = PyBytes_GET_SIZE(head)
    cdef Py_ssize_t made = (size + 2) // 3 * 4
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, before + made + PyBytes_GET_SIZE(tail))
    cdef u8 *to = <u8 *>PyBytes_AS_STRING(whole)
    cdef const u8 *at = <const u8 *>PyBytes_AS_STRING(data) + start
    memcpy(to, PyBytes_AS_STRING(head), before)
    memcpy(to + before + made, PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
    with nogil:
        base64(at, size, to + before)
    return whole


cdef void base64(const u8 *data, Py_ssize_t size, u8 *to) noexcept nogil:
    cdef uint32_t three
    while size >= 3:
        three = <uint32_t>data[0] << 16 | data[1] << 8 | data[2]
        memcpy(to, PAIRS + 2 * (three >> 12), 2)
        memcpy(to + 2, PAIRS + 2 * (three & 4095), 2)
        data += 3
        to += 4
        size -= 3
    if size:
        three = <uint32_t>data[0] << 16 | (data[1] << 8 if size == 2 else 0)
        memcpy(to, PAIRS + 2 * (three >> 12), 2)
        memcpy(to + 2, PAIRS + 2 * (three & 4095), 2)
        to[3] = c'='
        if size == 1:
            to[2] = c'='
