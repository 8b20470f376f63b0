# cython: cdivision=True
"""Write one value as COPY text: stored bytes in, text at a pointer out. C only, no Python object.

Each `put_` function writes at `to`, where the caller has made room (the most that
each can need stands in its docstring or in `kernel.Column.room`), and returns the
place behind what it wrote; one that may meet a value without a text returns NULL
then, and the caller asks the Python reader for the same value. Nothing here knows
where the event ends: the caller has checked that the bytes to be read are there.

What is written is, byte for byte, what `loader.values` and `loader.wire` write.
"""

from libc.math cimport fabs, signbit
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef unsigned char u8

cdef extern from *:
    """
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the kernel reads numbers as little-endian machines hold them"
    #endif
    static const char kernel_pairs[201] =
        "00010203040506070809" "10111213141516171819" "20212223242526272829"
        "30313233343536373839" "40414243444546474849" "50515253545556575859"
        "60616263646566676869" "70717273747576777879" "80818283848586878889"
        "90919293949596979899";
    static const char kernel_hex[17] = "0123456789abcdef";
    static const unsigned char kernel_month_days[16] =
        {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0};
    static const uint64_t kernel_tens[20] = {
        1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL,
        1000000000ULL, 10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL,
        100000000000000ULL, 1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL,
        1000000000000000000ULL, 10000000000000000000ULL};
    #ifdef __SIZEOF_INT128__
    #define KERNEL_HAS_PRODUCT 1
    static inline uint64_t kernel_product(uint64_t a, uint64_t b, int shift, uint64_t *rest) {
        unsigned __int128 product = (unsigned __int128)a * b;
        *rest = (uint64_t)product & (((uint64_t)1 << shift) - 1);
        return (uint64_t)(product >> shift);
    }
    #else
    #define KERNEL_HAS_PRODUCT 0
    static inline uint64_t kernel_product(uint64_t a, uint64_t b, int shift, uint64_t *rest) {
        (void)a; (void)b; (void)shift; *rest = 0; return 0;
    }
    #endif
    static const unsigned char kernel_group_bytes[10] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4};
    """
    const char *PAIRS "kernel_pairs"
    const char *HEX "kernel_hex"
    const u8 *MONTH_DAYS "kernel_month_days"
    const u8 *GROUP_BYTES "kernel_group_bytes"  # that hold so many decimal digits
    const uint64_t *TENS "kernel_tens"
    const bint HAS_PRODUCT "KERNEL_HAS_PRODUCT"
    uint64_t product "kernel_product"(uint64_t a, uint64_t b, int shift, uint64_t *rest) nogil
    int trailing_zeros "__builtin_ctzll"(uint64_t number) nogil


# --- numbers as stored -------------------------------------------------------------------------

cdef inline uint64_t little(const u8 *at, Py_ssize_t width) noexcept nogil:
    """An unsigned little-endian number of at most 8 bytes."""
    cdef uint64_t number = 0
    cdef Py_ssize_t place
    if width == 1:
        return at[0]
    elif width == 2:
        memcpy(&number, at, 2)
    elif width == 4:
        memcpy(&number, at, 4)
    elif width == 8:
        memcpy(&number, at, 8)
    else:
        for place in range(width):
            number |= <uint64_t>at[place] << (8 * place)
    return number


cdef inline uint64_t big(const u8 *at, Py_ssize_t width) noexcept nogil:
    """An unsigned big-endian number of at most 8 bytes."""
    cdef uint64_t number = 0
    cdef Py_ssize_t place
    for place in range(width):
        number = number << 8 | at[place]
    return number


# --- digits ------------------------------------------------------------------------------------

cdef inline u8 *put_two(u8 *to, uint32_t number) noexcept nogil:
    """Two digits; `number` below 100."""
    memcpy(to, PAIRS + 2 * number, 2)
    return to + 2


cdef inline u8 *put_unsigned(u8 *to, uint64_t number) noexcept nogil:
    """At most 20 bytes."""
    cdef int digits = 1
    cdef u8 *behind
    if number < 10:
        to[0] = <u8>(48 + number)
        return to + 1
    while digits < 20 and number >= TENS[digits]:
        digits += 1
    behind = to + digits
    to = behind
    while number >= 100:
        to -= 2
        put_two(to, <uint32_t>(number % 100))
        number //= 100
    if number >= 10:
        put_two(to - 2, <uint32_t>number)
    else:
        to[-1] = <u8>(48 + number)
    return behind


cdef inline u8 *put_padded(u8 *to, uint64_t number, int width) noexcept nogil:
    """Zeros before the number up to `width` digits; at most max(width, 20) bytes."""
    cdef uint64_t limit = 10
    cdef int digits = 1
    while digits < width:
        if number < limit:
            to[0] = 48
            to += 1
            width -= 1
        else:
            digits += 1
            limit *= 10
    return put_unsigned(to, number)


cdef inline u8 *put_integer(u8 *to, const u8 *at, int width, bint signed) noexcept nogil:
    """A little-endian integer; at most 20 bytes."""
    cdef uint64_t number = little(at, width)
    if signed and number >> (8 * width - 1):
        number = ~(number | ~<uint64_t>0 << (8 * width - 1)) + 1
        to[0] = 45
        to += 1
    return put_unsigned(to, number)


cdef inline u8 *put_bits(u8 *to, uint64_t number, int digits) noexcept nogil:
    """The low `digits` (at most 64) binary digits."""
    while digits:
        digits -= 1
        to[0] = <u8>(48 + (number >> digits & 1))
        to += 1
    return to


cdef inline u8 *put_fraction(u8 *to, uint64_t number, uint64_t scale, int places) noexcept nogil:
    """number / scale, scale = 10 ** places; trailing zeros left out but for one place."""
    cdef u8 *dot
    to = put_unsigned(to, number // scale)
    dot = to
    to[0] = 46
    to = put_padded(to + 1, number % scale, places)
    while to > dot + 2 and to[-1] == 48:
        to -= 1
    return to


cdef inline u8 *put_double(u8 *to, double number) noexcept nogil:
    """The shortest text that reads back the same, where it is quickly known; else NULL.

    A decimal of at most 15 digits that reads as `number` is the shortest: no two such
    decimals read as the same double. Both operands of `whole / 100.0` are exact, so
    that the quotient is what the decimal reads as. At most 26 bytes.
    """
    cdef double size = fabs(number)
    cdef int64_t whole
    if not size < 1e15:
        return NULL
    if signbit(number):
        to[0] = 45
        to += 1
    whole = <int64_t>size
    if <double>whole == size:
        return put_fraction(to, <uint64_t>whole, 1, 0)
    if size < 1e-3:
        return NULL
    if size < 9e12:
        whole = <int64_t>(size * 100.0 + 0.5)
        if <double>whole / 100.0 == size:
            return put_fraction(to, <uint64_t>whole, 100, 2)
    return put_shortest(to, size)


cdef inline u8 *put_shortest(u8 *to, double size) noexcept nogil:
    """The shortest decimal of 0.001 <= size < 1e15 by exact arithmetic; NULL where it is close.

    A decimal reads as `size` when it lies less than half a unit of the mantissa's last bit
    away. The nearest decimals of 16 digits are looked at, then of fewer while they read
    as `size`; 17 digits always do. What lies on the border, or between two, is left to Python.
    """
    cdef uint64_t bits
    cdef uint64_t mantissa
    cdef uint64_t found = 0
    cdef int places
    cdef int shift
    cdef int verdict
    memcpy(&bits, &size, 8)
    shift = 1075 - <int>(bits >> 52)
    mantissa = bits & ((<uint64_t>1 << 52) - 1)
    if not HAS_PRODUCT or mantissa == 0:  # a power of two: what is below it lies closer
        return NULL
    mantissa |= <uint64_t>1 << 52
    places = 16
    if size >= 1:
        while size >= TENS[16 - places]:
            places -= 1
    else:
        while size < 0.1 and places < 18:
            size *= 10
            places += 1
    verdict = nearest(mantissa, shift, places, &found)
    if verdict == 0:
        places += 1
        if nearest(mantissa, shift, places, &found) != 1:
            return NULL
    while verdict == 1 and places > 1:
        verdict = nearest(mantissa, shift, places - 1, &found)
        if verdict == 1:
            places -= 1
    if verdict < 0:
        return NULL
    return put_fraction(to, found, TENS[places], places)


cdef inline int nearest(
    uint64_t mantissa, int shift, int places, uint64_t *found
) noexcept nogil:
    """Does the nearest decimal of so many places read as the double? 1, 0; -1: too close to say."""
    cdef uint64_t rest
    cdef uint64_t whole = product(mantissa, TENS[places], shift, &rest)
    cdef uint64_t above = (<uint64_t>1 << shift) - rest
    if rest == above:
        return -1
    if above < rest:
        rest = above
        whole += 1
    if 2 * rest == TENS[places]:
        return -1
    if 2 * rest > TENS[places]:
        return 0
    found[0] = whole
    return 1


cdef inline u8 *put_group(u8 *to, const u8 *at, u8 flip, u8 sign, int digits) noexcept nogil:
    """One group of a DECIMAL's digits: at most 10 bytes."""
    cdef uint64_t number = 0
    cdef int place
    for place in range(GROUP_BYTES[digits]):
        number = number << 8 | <u8>(at[place] ^ flip ^ (sign if place == 0 else 0))
    return put_padded(to, number, digits)


cdef inline u8 *put_decimal(u8 *to, const u8 *at, int precision, int scale) noexcept nogil:
    """A DECIMAL of at most 65 digits; MySQL `mysys/decimal.cc`, bin2decimal. At most 128 bytes."""
    cdef u8 flip = 0 if at[0] & 0x80 else 0xFF
    cdef u8 sign = 0x80
    cdef int whole = precision - scale
    cdef int digits
    cdef u8 *head
    cdef u8 *digit
    if flip:
        to[0] = 45
        to += 1
    head = to
    while whole:
        digits = whole % 9 if whole % 9 else 9
        to = put_group(to, at, flip, sign, digits)
        at += GROUP_BYTES[digits]
        whole -= digits
        sign = 0
    digit = head
    while digit < to and digit[0] == 48:
        digit += 1
    if digit == to:
        head[0] = 48
        to = head + 1
    elif digit > head:
        while digit < to:
            head[0] = digit[0]
            head += 1
            digit += 1
        to = head
    if scale:
        to[0] = 46
        to += 1
    while scale:
        digits = 9 if scale >= 9 else scale
        to = put_group(to, at, flip, sign, digits)
        at += GROUP_BYTES[digits]
        scale -= digits
        sign = 0
    return to


# --- dates and times ---------------------------------------------------------------------------

cdef inline u8 *put_date(u8 *to, int64_t year, uint32_t month, uint32_t day) noexcept nogil:
    """Ten bytes; NULL where there is no such date between the years 1 and 9999."""
    cdef uint32_t last
    if year < 1 or year > 9999 or month < 1 or month > 12 or day < 1:
        return NULL
    last = MONTH_DAYS[month]
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        last = 29
    if day > last:
        return NULL
    to = put_two(to, <uint32_t>year // 100)
    to = put_two(to, <uint32_t>year % 100)
    to[0] = 45
    to = put_two(to + 1, month)
    to[0] = 45
    return put_two(to + 1, day)


cdef inline u8 *put_clock(
    u8 *to, uint32_t hour, uint32_t minute, uint32_t second, uint64_t fraction, int fsp
) noexcept nogil:
    """hh:mm:ss and `fsp` digits of a fraction stored in (fsp + 1) // 2 bytes; 20 bytes.

    A stored fraction of more digits than its place has is cut behind the first `fsp`.
    """
    cdef int width = (fsp + 1) // 2
    to = put_padded(to, hour, 2)
    to[0] = 58
    to = put_two(to + 1, minute)
    to[0] = 58
    to = put_two(to + 1, second)
    if fsp:
        to[0] = 46
        if width == 1:
            fraction *= 10000
        elif width == 2:
            fraction *= 100
        put_padded(to + 1, fraction, 6)
        to += 1 + fsp
    return to


cdef inline u8 *put_date3(u8 *to, const u8 *at) noexcept nogil:
    """A DATE: 15 bits of year, 4 of month, 5 of day. NULL where there is no such date."""
    cdef uint32_t packed = <uint32_t>little(at, 3)
    return put_date(to, packed >> 9, packed >> 5 & 15, packed & 31)


cdef inline u8 *put_datetime2(u8 *to, const u8 *at, int fsp) noexcept nogil:
    """A DATETIME(fsp); at most 32 bytes. NULL where there is no such date."""
    cdef int64_t packed = <int64_t>big(at, 5) - (<int64_t>1 << 39)
    cdef int64_t months = packed >> 22
    if packed < 0:
        return NULL
    to = put_date(to, months // 13, <uint32_t>(months % 13), <uint32_t>(packed >> 17 & 31))
    if to == NULL:
        return NULL
    to[0] = 32
    return put_clock(
        to + 1, packed >> 12 & 31, packed >> 6 & 63, packed & 63, big(at + 5, (fsp + 1) // 2), fsp
    )


cdef inline u8 *put_datetime8(u8 *to, const u8 *at) noexcept nogil:
    """A DATETIME of before MySQL 5.6: yyyymmddhhmmss as a number. NULL: no such date."""
    cdef uint64_t packed = little(at, 8)
    cdef uint64_t day = packed // 1000000
    cdef uint32_t clock = <uint32_t>(packed % 1000000)
    if day // 10000 > 9999:
        return NULL
    to = put_date(to, <int64_t>(day // 10000), <uint32_t>(day // 100 % 100), <uint32_t>(day % 100))
    if to == NULL:
        return NULL
    to[0] = 32
    return put_clock(to + 1, clock // 10000, clock // 100 % 100, clock % 100, 0, 0)


cdef inline u8 *put_moment(u8 *to, uint32_t seconds, uint64_t fraction, int fsp) noexcept nogil:
    """Seconds since 1970 in UTC; at most 32 bytes. NULL for the zero timestamp.

    Days to a date: Howard Hinnant's "chrono-compatible low-level date algorithms",
    civil_from_days.
    """
    cdef uint32_t clock = seconds % 86400
    cdef uint32_t days = seconds // 86400 + 719468
    cdef uint32_t era = days // 146097
    cdef uint32_t of_era = days - era * 146097
    cdef uint32_t year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef uint32_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef uint32_t from_march = (5 * of_year + 2) // 153
    cdef uint32_t month = from_march + 3 if from_march < 10 else from_march - 9
    if seconds == 0 and fraction == 0:
        return NULL
    year += era * 400 + (1 if month <= 2 else 0)
    to = put_date(to, year, month, of_year - (153 * from_march + 2) // 5 + 1)
    to[0] = 32
    to = put_clock(to + 1, clock // 3600, clock // 60 % 60, clock % 60, fraction, fsp)
    memcpy(to, b"+00", 3)
    return to + 3


cdef inline u8 *put_time2(u8 *to, const u8 *at, int fsp) noexcept nogil:
    """A TIME(fsp), which may be negative; at most 24 bytes."""
    cdef int bits = 8 * ((fsp + 1) // 2)
    cdef int64_t packed = <int64_t>big(at, 3 + bits // 8) - (<int64_t>0x800000 << bits)
    cdef int64_t whole
    if packed < 0:
        packed = -packed
        to[0] = 45
        to += 1
    whole = packed >> bits
    return put_clock(
        to, whole >> 12 & 0x3FF, whole >> 6 & 63, whole & 63,
        <uint64_t>(packed - (whole << bits)), fsp,
    )


cdef inline u8 *put_time3(u8 *to, const u8 *at) noexcept nogil:
    """A TIME of before MySQL 5.6: hhmmss as a signed number; at most 16 bytes."""
    cdef int64_t packed = <int64_t>little(at, 3)
    if packed & 0x800000:
        packed = 0x1000000 - packed
        to[0] = 45
        to += 1
    return put_clock(to, packed // 10000, packed // 100 % 100, packed % 100, 0, 0)


# --- strings -----------------------------------------------------------------------------------

cdef inline uint64_t special(uint64_t word) noexcept nogil:
    """The lowest high bit marks the first of 8 bytes that is not ASCII from the space on, or is
    a backslash; 0 where there is none. What is marked above the lowest may be marked wrongly.
    """
    cdef uint64_t ones = ~<uint64_t>0 // 255
    return (word | (word - ones * 0x20) | ((word ^ ones * 0x5C) - ones)) & (ones * 0x80)


cdef inline Py_ssize_t copy_plain(
    u8 *to, const u8 *at, Py_ssize_t left, Py_ssize_t readable
) noexcept nogil:
    """Copy the plain text that the `left` bytes begin with; how many bytes it has, or fewer.

    Whole words are read, as far as `readable` says, and 8 bytes more may be written.
    """
    cdef Py_ssize_t done = 0
    cdef uint64_t word
    while done < left and readable - done >= 8:
        memcpy(&word, at + done, 8)
        memcpy(to + done, &word, 8)
        word = special(word)
        if word:
            done += trailing_zeros(word) >> 3
            break
        done += 8
    return done if done < left else left


cdef inline u8 *put_ascii(u8 *to, u8 byte) noexcept nogil:
    """One ASCII character, escaped for COPY: at most two bytes."""
    cdef u8 letter
    if byte == 92:
        letter = 92
    elif byte == 9:
        letter = 116
    elif byte == 10:
        letter = 110
    elif byte == 13:
        letter = 114
    else:
        to[0] = byte
        return to + 1
    to[0] = 92
    to[1] = letter
    return to + 2


cdef inline int utf8_length(const u8 *at, Py_ssize_t left) noexcept nogil:
    """Bytes of the well-formed character at `at` (not ASCII); 0 where there is none.

    The Unicode Standard, table 3-7.
    """
    cdef u8 first = at[0]
    cdef u8 low = 0x80
    cdef u8 high = 0xBF
    cdef int length
    if first < 0xC2 or first > 0xF4:
        return 0
    if first < 0xE0:
        length = 2
    elif first < 0xF0:
        length = 3
        if first == 0xE0:
            low = 0xA0
        elif first == 0xED:
            high = 0x9F
    else:
        length = 4
        if first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F
    if left < length or at[1] < low or at[1] > high:
        return 0
    if length > 2 and at[2] & 0xC0 != 0x80:
        return 0
    if length > 3 and at[3] & 0xC0 != 0x80:
        return 0
    return length


cdef inline u8 *put_utf8(
    u8 *to, const u8 *at, Py_ssize_t left, Py_ssize_t readable, bint ascii
) noexcept nogil:
    """UTF-8 (only its ASCII, if so told). NULL: invalid, or a NUL.

    At most twice the bytes, and 8 bytes of room behind them. See `copy_plain` on `readable`.
    """
    cdef Py_ssize_t length
    cdef Py_ssize_t place
    while True:
        length = copy_plain(to, at, left, readable)
        to += length
        at += length
        left -= length
        readable -= length
        if left == 0:
            return to
        if at[0] < 0x80:
            if at[0] == 0:
                return NULL
            to = put_ascii(to, at[0])
            length = 1
        else:
            length = 0 if ascii else utf8_length(at, left)
            if length == 0:
                return NULL
            for place in range(length):
                to[place] = at[place]
            to += length
        at += length
        left -= length
        readable -= length


cdef inline u8 *put_mapped(
    u8 *to, const u8 *at, Py_ssize_t left, Py_ssize_t readable, const u8 *table, bint ascii
) noexcept nogil:
    """A single-byte character set. NULL: a byte without a text.

    `table` has four bytes for each byte: up to three of text and their number, 0 where
    there is none; `ascii` tells that plain ASCII stands for itself. At most three times
    the bytes, and 8 bytes of room behind them. See `copy_plain` on `readable`.
    """
    cdef const u8 *entry
    cdef Py_ssize_t length
    while True:
        if ascii:
            length = copy_plain(to, at, left, readable)
            to += length
            at += length
            left -= length
            readable -= length
        if left == 0:
            return to
        entry = table + 4 * at[0]
        if entry[3] == 0:
            return NULL
        memcpy(to, entry, 4)
        to += entry[3]
        at += 1
        left -= 1
        readable -= 1


cdef inline u8 *put_hex(u8 *to, const u8 *at, Py_ssize_t left) noexcept nogil:
    """Twice the bytes."""
    while left:
        to[0] = HEX[at[0] >> 4]
        to[1] = HEX[at[0] & 15]
        to += 2
        at += 1
        left -= 1
    return to
