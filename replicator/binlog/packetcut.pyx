# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cut what a socket gave behind its last whole packet; see `resultset.python_cut`."""

from libc.stdint cimport uint8_t

cdef enum:
    MORE
    ENDED
    GIANT
    MISNUMBERED


def cut(bytearray buffer not None, Py_ssize_t start, Py_ssize_t end, int sequence):
    """Walk the packets of `buffer` from `start`, which is a packet's first byte, to `end`."""
    if not 0 <= start <= end <= len(buffer):
        raise IndexError("not a part of the buffer")
    cdef const uint8_t *data = <const uint8_t *><const char *>buffer
    cdef Py_ssize_t at = start
    cdef Py_ssize_t length
    while end - at >= 4:
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        if data[at + 3] != sequence:
            return at, sequence, MISNUMBERED
        if length == 0xFFFFFF:
            return at, sequence, GIANT
        if end - at - 4 < length:
            break
        if length > 0 and (data[at + 4] == 0xFF or (data[at + 4] == 0xFE and length < 9)):
            return at, sequence, ENDED
        at += 4 + length
        sequence = (sequence + 1) & 0xFF
    return at, sequence, MORE
