# cython: cdivision=True
"""Read one field of COPY text and write the value as PostgreSQL's binary form has it. C only.

Each `read_` function reads at `at`, and writes the value, without its length, at `to`, where
the caller has made room (see `binary_copy.ROOM`). It returns the place behind what it read,
which is the field's end if that is where a tab or a newline stands (the caller looks), or
NULL where the field has no form of those that are known here to the letter: the same value
may well have others, and PostgreSQL may well take them, as text. Where the binary form's
length is not the type's, the place behind what was written is returned as well.

Nothing is read from `end` on. `end[-1]` is a newline, and no value has one: what goes from one
byte to the next ends there, and what looks further asks `end` first.

What is written is what the type's input function would make of the text: PostgreSQL's sources,
`utils/adt`, the `_recv` of each type. Numbers are big-endian there.
"""

from libc.math cimport HUGE_VAL, fabs, ldexp
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport strtod, strtof
from libc.string cimport memcpy

from loader.copytext cimport MONTH_DAYS, TENS, trailing_zeros

ctypedef unsigned char u8

cdef extern from *:
    """
    static const double binary_powers[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
        1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static const uint64_t binary_fives[28] = {
        1ULL, 5ULL, 25ULL, 125ULL, 625ULL, 3125ULL, 15625ULL, 78125ULL, 390625ULL,
        1953125ULL, 9765625ULL, 48828125ULL, 244140625ULL, 1220703125ULL, 6103515625ULL,
        30517578125ULL, 152587890625ULL, 762939453125ULL, 3814697265625ULL,
        19073486328125ULL, 95367431640625ULL, 476837158203125ULL, 2384185791015625ULL,
        11920928955078125ULL, 59604644775390625ULL, 298023223876953125ULL,
        1490116119384765625ULL, 7450580596923828125ULL};
    #ifdef __SIZEOF_INT128__
    #define BINARY_HAS_QUOTIENT 1
    static inline uint64_t binary_quotient(uint64_t whole, uint64_t by, int *inexact) {
        unsigned __int128 wide = (unsigned __int128)whole << 63;
        uint64_t found = (uint64_t)(wide / by);
        *inexact = (unsigned __int128)found * by != wide;
        return found;
    }
    #else
    #define BINARY_HAS_QUOTIENT 0
    static inline uint64_t binary_quotient(uint64_t whole, uint64_t by, int *inexact) {
        (void)whole; (void)by; *inexact = 0; return 0;
    }
    #endif
    """
    const double *POWERS "binary_powers"  # the powers of ten that doubles hold exactly
    const uint64_t *FIVES "binary_fives"
    const bint HAS_QUOTIENT "BINARY_HAS_QUOTIENT"
    uint64_t quotient "binary_quotient"(uint64_t whole, uint64_t by, int *inexact) nogil
    int leading_zeros "__builtin_clzll"(uint64_t number) nogil
    uint16_t swap16 "__builtin_bswap16"(uint16_t number) nogil
    uint32_t swap32 "__builtin_bswap32"(uint32_t number) nogil
    uint64_t swap64 "__builtin_bswap64"(uint64_t number) nogil


cdef struct Passed:  # in two registers: pointers to variables would cost more than the values
    const u8 *at  # what was read lies before it; NULL: not for binary
    u8 *to  # what was written lies before it


cdef inline Passed passed(const u8 *at, u8 *to) noexcept nogil:
    cdef Passed made
    made.at, made.to = at, to
    return made


cdef inline void put16(u8 *to, int number) noexcept nogil:
    cdef uint16_t turned = swap16(<uint16_t>number)
    memcpy(to, &turned, 2)


cdef inline void put32(u8 *to, int64_t number) noexcept nogil:
    cdef uint32_t turned = swap32(<uint32_t>number)
    memcpy(to, &turned, 4)


cdef inline void put64(u8 *to, int64_t number) noexcept nogil:
    cdef uint64_t turned = swap64(<uint64_t>number)
    memcpy(to, &turned, 8)


cdef inline bint is_digit(u8 byte) noexcept nogil:
    return <u8>(byte - 48) <= 9


# --- numbers -----------------------------------------------------------------------------------

cdef inline const u8 *read_integer(const u8 *at, int64_t *number, int bits) noexcept nogil:
    """A whole number of so many bits: digits, perhaps behind a minus."""
    cdef bint negative = at[0] == 45
    cdef uint64_t found = 0
    cdef uint64_t limit
    cdef const u8 *start
    if negative:
        at += 1
    start = at
    while is_digit(at[0]):
        found = found * 10 + <uint64_t>(at[0] - 48)
        at += 1
        if at - start > 19:  # nineteen digits are below 2 ** 64
            return NULL
    limit = (<uint64_t>1 << (bits - 1)) - (0 if negative else 1)
    if at == start or found > limit:
        return NULL
    number[0] = <int64_t>(~found + 1 if negative else found)
    return at


cdef inline const u8 *read_int2(const u8 *at, u8 *to) noexcept nogil:
    cdef int64_t number = 0
    at = read_integer(at, &number, 16)
    put16(to, <int>number)
    return at


cdef inline const u8 *read_int4(const u8 *at, u8 *to) noexcept nogil:
    cdef int64_t number = 0
    at = read_integer(at, &number, 32)
    put32(to, number)
    return at


cdef inline const u8 *read_int8(const u8 *at, u8 *to) noexcept nogil:
    cdef int64_t number = 0
    at = read_integer(at, &number, 64)
    put64(to, number)
    return at


cdef inline const u8 *read_bool(const u8 *at, u8 *to) noexcept nogil:
    if at[0] != 116 and at[0] != 102:
        return NULL
    to[0] = at[0] == 116
    return at + 1


cdef struct Decimal:  # digits, a dot, digits, an exponent: as a float is spelled
    const u8 *behind
    uint64_t digits  # the first nineteen, without zeros in front
    int count  # of all of them
    int64_t exponent
    bint negative


cdef inline const u8 *more_digits(const u8 *at, Decimal *found) noexcept nogil:
    """Take in the digits that stand here; the place behind them."""
    while is_digit(at[0]):
        found.count += found.count > 0 or at[0] != 48
        if found.count <= 19:
            found.digits = found.digits * 10 + <uint64_t>(at[0] - 48)
        at += 1
    return at


cdef inline bint read_decimal(const u8 *at, Decimal *found) noexcept nogil:
    """False where it is spelled otherwise."""
    cdef int places = 0
    cdef int exponent = 0
    cdef bint lowered = False
    cdef const u8 *start
    found.negative = at[0] == 45
    found.digits = 0
    found.count = 0
    if found.negative:
        at += 1
    start = at
    at = more_digits(at, found)
    if at == start:
        return False
    if at[0] == 46:
        start = at + 1
        at = more_digits(start, found)
        places = <int>(at - start) if at - start < 1000 else 1000
        if places == 0:
            return False
    if at[0] == 101:
        at += 1
        lowered = at[0] == 45
        if lowered or at[0] == 43:
            at += 1
        start = at
        while is_digit(at[0]) and at - start < 4:
            exponent = exponent * 10 + (at[0] - 48)
            at += 1
        if at == start:
            return False
    found.exponent = (-exponent if lowered else exponent) - places
    found.behind = at
    return True


cdef inline bint quick_double(const Decimal *found, double *number) noexcept nogil:
    """The nearest double, where it takes one operation on two exact ones.

    W. D. Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990.
    """
    cdef double whole
    if found.count > 15 or not -22 <= found.exponent <= 22:
        return divided_double(found, number)
    whole = <double>found.digits
    whole = whole / POWERS[-found.exponent] if found.exponent < 0 else (
        whole * POWERS[found.exponent]
    )
    number[0] = -whole if found.negative else whole
    return True


cdef inline bint divided_double(const Decimal *found, double *number) noexcept nogil:
    """The nearest double to up to nineteen digits over a power of ten, by whole numbers.

    digits / 10 ** n is digits / 5 ** n, a binary point elsewhere. Both have their highest bit
    moved to the top, so that the quotient has 63 or 64 bits: ten more than a mantissa at least,
    and whether there is a rest says on which side of a half it lies.
    """
    cdef int places = <int>-found.exponent if -27 <= found.exponent < 0 else 0
    cdef uint64_t by = FIVES[places]
    cdef uint64_t whole
    cdef uint64_t half
    cdef uint64_t below
    cdef int inexact = 0
    cdef int shift
    cdef int power
    if not HAS_QUOTIENT or places == 0 or found.digits == 0 or found.count > 19:
        return False
    power = leading_zeros(by) - leading_zeros(found.digits) - 63 - places
    whole = quotient(
        found.digits << leading_zeros(found.digits), by << leading_zeros(by), &inexact
    )
    shift = 11 - leading_zeros(whole)
    half = <uint64_t>1 << (shift - 1)
    below = whole & (2 * half - 1)
    whole >>= shift
    if below > half or (below == half and (inexact or whole & 1)):
        whole += 1  # perhaps to 2 ** 53, which is a double as well
    number[0] = ldexp(<double>whole, power + shift)
    if found.negative:
        number[0] = -number[0]
    return True


cdef inline bint spelled(char *text, const u8 *at, const Decimal *found) noexcept nogil:
    """The number's text for `strtod`, which wants a NUL behind it; 64 bytes have room for it."""
    cdef Py_ssize_t length = found.behind - at
    if length > 60:
        return False
    memcpy(text, at, length)
    text[length] = 0
    return True


cdef inline const u8 *read_float8(const u8 *at, u8 *to) noexcept nogil:
    """The nearest double, as PostgreSQL's own `strtod` finds it.

    That goes by the locale: where a comma stands for the dot it stops early, and so do we. What
    it finds too large, or too small, PostgreSQL is to refuse.
    """
    cdef Decimal found
    cdef char[64] text
    cdef char *behind
    cdef double number = 0
    cdef int64_t bits
    if not read_decimal(at, &found):
        return NULL
    if not quick_double(&found, &number):
        if not spelled(text, at, &found):
            return NULL
        number = strtod(text, &behind)
        if behind - text != found.behind - at or fabs(number) == HUGE_VAL:
            return NULL
        if number == 0 and found.count:
            return NULL
    memcpy(&bits, &number, 8)
    put64(to, bits)
    return found.behind


cdef inline const u8 *read_float4(const u8 *at, u8 *to) noexcept nogil:
    """The nearest float. If the nearest double is a float, that is the nearest float too."""
    cdef Decimal found
    cdef char[64] text
    cdef char *behind
    cdef double number = 0
    cdef float single = 0
    cdef int32_t bits
    if not read_decimal(at, &found):
        return NULL
    if quick_double(&found, &number):
        single = <float>number
    else:
        number = HUGE_VAL
    if <double>single != number:
        if not spelled(text, at, &found):
            return NULL
        single = strtof(text, &behind)
        if behind - text != found.behind - at or single == 0:
            return NULL
    if fabs(<double>single) == HUGE_VAL:
        return NULL
    memcpy(&bits, &single, 4)
    put32(to, bits)
    return found.behind


cdef inline Passed read_numeric(const u8 *at, u8 *to) noexcept nogil:
    """Digits, perhaps a dot and digits: groups of four, the weight of the first, digits shown."""
    cdef bint negative = at[0] == 45
    cdef const u8 *start
    cdef const u8 *dot
    cdef Py_ssize_t whole
    cdef Py_ssize_t places = 0
    cdef Py_ssize_t left
    cdef u8 *group = to + 8
    cdef int value = 0
    if negative:
        at += 1
    start = at
    while is_digit(at[0]):
        at += 1
    if at == start or at - start > 1000:
        return passed(NULL, to)
    dot = at
    while start < dot and start[0] == 48:
        start += 1
    whole = dot - start
    if at[0] == 46:
        at += 1
        while is_digit(at[0]):
            at += 1
        places = at - dot - 1
        if places == 0 or places > 1000:
            return passed(NULL, to)
    left = whole
    while left:
        value = value * 10 + (start[0] - 48)
        start += 1
        left -= 1
        if left % 4 == 0:
            put16(group, value)
            group += 2
            value = 0
    left = places
    start = dot + 1
    while left:
        value = value * 10 + (start[0] - 48)
        start += 1
        left -= 1
        if (places - left) % 4 == 0:
            put16(group, value)
            group += 2
            value = 0
    if places % 4:
        put16(group, value * <int>TENS[4 - places % 4])
        group += 2
    put16(to, <int>((group - to) // 2 - 4))
    put16(to + 2, <int>((whole + 3) // 4 - 1))
    put16(to + 4, 0x4000 if negative else 0)
    put16(to + 6, <int>places)
    return passed(at, group)


cdef inline Passed read_bits(const u8 *at, u8 *to) noexcept nogil:
    """Binary digits: how many, and bytes of them, filled up with zeros at the low end."""
    cdef const u8 *start = at
    cdef u8 *byte = to + 4
    cdef Py_ssize_t count
    while at[0] == 48 or at[0] == 49:
        if (at - start) % 8 == 0:
            byte[0] = 0
            byte += 1
        byte[-1] |= (at[0] - 48) << (7 - (at - start) % 8)
        at += 1
    count = at - start
    if count > 0x7FFFFFF:
        return passed(NULL, to)
    put32(to, count)
    return passed(at, byte)


# --- dates and times ---------------------------------------------------------------------------

cdef inline int two(const u8 *at) noexcept nogil:
    """Two digits; below 0 where they are none."""
    if not is_digit(at[0]) or not is_digit(at[1]):
        return -1
    return (at[0] - 48) * 10 + (at[1] - 48)


cdef inline bint days_of(int century, int year, int month, int day, int64_t *days) noexcept nogil:
    """Days since 2000-01-01 of a date between the years 1 and 9999; False where it is none.

    Howard Hinnant's "chrono-compatible low-level date algorithms", days_from_civil.
    """
    cdef int last
    cdef int64_t era
    cdef int64_t of_era
    if century < 0 or year < 0 or not 1 <= month <= 12 or day < 1:
        return False
    year += century * 100
    last = MONTH_DAYS[month]
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        last = 29
    if day > last or year == 0:
        return False
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    month = month - 3 if month > 2 else month + 9
    days[0] = (
        era * 146097 + of_era * 365 + of_era // 4 - of_era // 100
        + (153 * month + 2) // 5 + day - 1 - 730425
    )
    return True


cdef inline int64_t micros_of(int64_t days) noexcept nogil:
    return days * 86400 * 1000000


cdef inline bint clock_of(int hour, int minute, int second, int64_t *micros) noexcept nogil:
    """Microseconds since midnight; False where there is no such time of day."""
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59:
        return False
    micros[0] += ((<int64_t>hour * 60 + minute) * 60 + second) * 1000000
    return True


cdef inline const u8 *fraction_of(const u8 *at, int64_t *micros) noexcept nogil:
    """Up to six digits behind a dot, if there is one here."""
    cdef int64_t found = 0
    cdef int places = 0
    micros[0] = 0
    if at[0] != 46:
        return at
    at += 1
    while is_digit(at[0]):
        found = found * 10 + (at[0] - 48)
        at += 1
        places += 1
        if places > 6:
            return NULL
    if places == 0:
        return NULL
    micros[0] = found * <int64_t>TENS[6 - places]
    return at


cdef inline bint dated(const u8 *at, const u8 *end, int64_t *days) noexcept nogil:
    """yyyy-mm-dd, and a byte behind it."""
    if end - at < 11 or at[4] != 45 or at[7] != 45:
        return False
    return days_of(two(at), two(at + 2), two(at + 5), two(at + 8), days)


cdef inline const u8 *read_date(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    cdef int64_t days = 0
    if not dated(at, end, &days):
        return NULL
    put32(to, days)
    return at + 10


cdef inline const u8 *read_timestamp(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """yyyy-mm-dd hh:mm:ss, perhaps with a fraction: microseconds since 2000."""
    cdef int64_t days = 0
    cdef int64_t micros = 0
    cdef const u8 *behind
    if end - at < 20 or not dated(at, end, &days):
        return NULL
    if at[10] != 32 or at[13] != 58 or at[16] != 58:
        return NULL
    behind = fraction_of(at + 19, &micros)
    if behind == NULL or not clock_of(two(at + 11), two(at + 14), two(at + 17), &micros):
        return NULL
    put64(to, micros_of(days) + micros)
    return behind


cdef inline const u8 *read_compact(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """yyyymmdd hhmmss, perhaps with a fraction, and the Z that the caller looks for."""
    cdef int64_t days = 0
    cdef int64_t micros = 0
    cdef const u8 *behind
    if end - at < 16 or at[8] != 32:
        return NULL
    behind = fraction_of(at + 15, &micros)
    if behind == NULL or not clock_of(two(at + 9), two(at + 11), two(at + 13), &micros):
        return NULL
    if not days_of(two(at), two(at + 2), two(at + 4), two(at + 6), &days):
        return NULL
    put64(to, micros_of(days) + micros)
    return behind


cdef inline const u8 *read_timestamptz(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """In UTC, and it says so: `timestamp_text`'s +00, or `stamp_text`'s Z."""
    cdef const u8 *behind
    if end - at >= 5 and at[4] == 45:
        behind = read_timestamp(at, end, to)
        if behind == NULL or end - behind < 4:
            return NULL
        if behind[0] != 43 or behind[1] != 48 or behind[2] != 48:
            return NULL
        return behind + 3
    behind = read_compact(at, end, to)
    if behind == NULL or behind[0] != 90:
        return NULL
    return behind + 1


cdef inline const u8 *read_interval(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """hh:mm:ss, the hours of two to four digits, perhaps with a minus and a fraction.

    PostgreSQL takes such a text for hours, not for days: microseconds, days, months.
    """
    cdef bint negative = at[0] == 45
    cdef int64_t hours = 0
    cdef int64_t micros = 0
    cdef int minute
    cdef int second
    cdef const u8 *start
    if negative:
        at += 1
    start = at
    while is_digit(at[0]) and at - start < 4:
        hours = hours * 10 + (at[0] - 48)
        at += 1
    if at - start < 2 or at[0] != 58 or end - at < 7 or at[3] != 58:
        return NULL
    minute, second = two(at + 1), two(at + 4)
    if not 0 <= minute <= 59 or not 0 <= second <= 59:
        return NULL
    at = fraction_of(at + 6, &micros)
    if at == NULL:
        return NULL
    micros += ((hours * 60 + minute) * 60 + second) * 1000000
    put64(to, -micros if negative else micros)
    put64(to + 8, 0)
    return at


# --- strings -----------------------------------------------------------------------------------

cdef inline uint64_t unplain(uint64_t word) noexcept nogil:
    """The lowest high bit marks the first of 8 bytes that is a control character or a backslash;
    0 where there is none. What is marked above the lowest may be marked wrongly.
    """
    cdef uint64_t ones = ~<uint64_t>0 // 255
    cdef uint64_t slashed = word ^ ones * 0x5C
    return (((word - ones * 0x20) & ~word) | ((slashed - ones) & ~slashed)) & (ones * 0x80)


cdef inline Passed read_text(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """The text without its escapes; PostgreSQL looks at its UTF-8. 7 bytes more may be written.

    Only what `values.escaped` writes is known: of other control characters, which stand for
    themselves, a NUL and a bare carriage return are left for PostgreSQL to refuse.
    """
    cdef uint64_t word
    cdef int plain
    if at[0] == 9 or at[0] == 10:  # most texts are empty
        return passed(at, to)
    while True:
        while end - at >= 8:
            memcpy(&word, at, 8)
            memcpy(to, &word, 8)
            word = unplain(word)
            plain = trailing_zeros(word) >> 3 if word else 8
            at += plain
            to += plain
            if plain < 8:
                break
        if at[0] >= 32 and at[0] != 92:
            to[0] = at[0]
            at += 1
        elif at[0] == 9 or at[0] == 10:
            return passed(at, to)
        elif at[0] == 92:
            at += 1
            if at[0] == 92:
                to[0] = 92
            elif at[0] == 116:
                to[0] = 9
            elif at[0] == 110:
                to[0] = 10
            elif at[0] == 114:
                to[0] = 13
            else:
                return passed(NULL, to)
            at += 1
        elif at[0] == 0 or at[0] == 13:
            return passed(NULL, to)
        else:
            to[0] = at[0]
            at += 1
        to += 1


cdef inline int hex_digit(u8 byte) noexcept nogil:
    if is_digit(byte):
        return byte - 48
    if 97 <= byte <= 102:
        return byte - 87
    return -1


cdef inline Passed read_bytea(const u8 *at, const u8 *end, u8 *to) noexcept nogil:
    """The hex form, its backslash escaped: two backslashes, an x, and lower-case digits."""
    cdef int high
    cdef int low
    if end - at < 4 or at[0] != 92 or at[1] != 92 or at[2] != 120:
        return passed(NULL, to)
    at += 3
    while True:
        high = hex_digit(at[0])
        if high < 0:
            return passed(at, to)
        low = hex_digit(at[1])
        if low < 0:
            return passed(NULL, to)
        to[0] = <u8>(high << 4 | low)
        to += 1
        at += 2
