# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cut a received buffer into events, compiled: what `stream` does for each plain packet.

Left: the buffer of a `BinlogStream` and an offset in it. Right: the plain events from
there on, each checked against its checksum, without it, and its length set; and the offset
of the first packet that is not plain or not whole. Those are for `stream` itself: errors,
packets of 16 MiB, events that change the stream's state, and those whose checksum is wrong.

No byte is looked at before its packet is known to lie within the buffer.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t

ctypedef unsigned char u8

cdef enum:
    FRAME_LIMIT = 0xFFFFFF
    HEADER = 19
    AT_ONCE = 2048
    ROTATE = 4
    FORMAT_DESCRIPTION = 15
    HEARTBEAT = 27
    HEARTBEAT_V2 = 41
    TRANSACTION_PAYLOAD = 40  # many events in one: `payload` unpacks it

cdef struct Found:
    Py_ssize_t at
    Py_ssize_t length

cdef uint32_t[8][256] TABLES


cdef void _make_tables() noexcept:
    """CRC-32 as zlib has it, eight bytes at a time ("slicing by 8")."""
    cdef uint32_t value
    cdef int byte, turn
    for byte in range(256):
        value = byte
        for turn in range(8):
            value = (value >> 1) ^ (0xEDB88320U if value & 1 else 0)
        TABLES[0][byte] = value
    for byte in range(256):
        for turn in range(1, 8):
            value = TABLES[turn - 1][byte]
            TABLES[turn][byte] = (value >> 8) ^ TABLES[0][value & 0xFF]


_make_tables()


cdef inline uint32_t _little(const u8 *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef uint32_t _crc32(const u8 *data, Py_ssize_t length) noexcept nogil:
    cdef uint32_t crc = 0xFFFFFFFFU, low, high
    while length >= 8:
        low = _little(data) ^ crc
        high = _little(data + 4)
        crc = (
            TABLES[7][low & 0xFF] ^ TABLES[6][low >> 8 & 0xFF]
            ^ TABLES[5][low >> 16 & 0xFF] ^ TABLES[4][low >> 24]
            ^ TABLES[3][high & 0xFF] ^ TABLES[2][high >> 8 & 0xFF]
            ^ TABLES[1][high >> 16 & 0xFF] ^ TABLES[0][high >> 24]
        )
        data += 8
        length -= 8
    while length > 0:
        crc = (crc >> 8) ^ TABLES[0][(crc ^ data[0]) & 0xFF]
        data += 1
        length -= 1
    return crc ^ 0xFFFFFFFFU


def crc32(bytes data) -> int:
    """The checksum of `data`, for tests."""
    return _crc32(<const u8 *>PyBytes_AS_STRING(data), len(data))


def cut(bytearray buffer, Py_ssize_t at, bint checksums, list events) -> int:
    """Append the plain events from `at` on to `events`; the offset of what is left."""
    cdef Found[AT_ONCE] found
    cdef Py_buffer view
    cdef Py_ssize_t count = AT_ONCE, number
    if at < 0:
        raise ValueError("an offset before the buffer")
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        while count == AT_ONCE:
            with nogil:
                count = 0
                at = _find(<const u8 *>view.buf, view.len, at, checksums, found, &count)
            for number in range(count):
                events.append(
                    _event(<const u8 *>view.buf + found[number].at, found[number].length)
                )
    finally:
        PyBuffer_Release(&view)
    return at


cdef Py_ssize_t _find(
    const u8 *data, Py_ssize_t size, Py_ssize_t at, bint checksums, Found *found, Py_ssize_t *count
) noexcept nogil:
    cdef Py_ssize_t length, tail = 4 if checksums else 0
    cdef const u8 *event
    while count[0] < AT_ONCE and size - at >= 4:
        length = data[at] | <Py_ssize_t>data[at + 1] << 8 | <Py_ssize_t>data[at + 2] << 16
        if length == FRAME_LIMIT or length > size - at - 4 or length < 1 + HEADER + tail:
            break
        event = data + at + 5
        if data[at + 4] != 0 or event[4] in (ROTATE, FORMAT_DESCRIPTION, HEARTBEAT, HEARTBEAT_V2):
            break
        if event[4] == TRANSACTION_PAYLOAD:
            break
        length -= 1 + tail
        if checksums and _crc32(event, length) != _little(event + length):
            break
        found[count[0]].at = at + 5
        found[count[0]].length = length
        count[0] += 1
        at += 5 + length + tail
    return at


cdef bytes _event(const u8 *data, Py_ssize_t length):
    cdef bytes event = PyBytes_FromStringAndSize(<const char *>data, length)
    cdef u8 *to = <u8 *>PyBytes_AS_STRING(event)
    to[9], to[10] = length & 0xFF, length >> 8 & 0xFF
    to[11], to[12] = length >> 16 & 0xFF, length >> 24 & 0xFF
    return event
