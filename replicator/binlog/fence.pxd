# cython: language_level=3
"""Where a compiled reader gets its input: the bytes object's own memory, or a fenced copy.

Built with KERNEL_FENCED, input is read from a copy without a byte behind it, so that
AddressSanitizer sees what a bytes object's closing NUL would hide. NULL: no memory.
"""

ctypedef unsigned char u8

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #ifndef INPUT_FENCE
    #define INPUT_FENCE
    #ifdef KERNEL_FENCED
    static const unsigned char *input_fence(const char *data, size_t size) {
        void *copy = malloc(size ? size : 1);
        return copy ? memcpy(copy, data, size) : NULL;
    }
    static void input_unfence(const unsigned char *data) { free((void *)data); }
    #else
    static const unsigned char *input_fence(const char *data, size_t size) {
        (void)size;
        return (const unsigned char *)data;
    }
    static void input_unfence(const unsigned char *data) { (void)data; }
    #endif
    #endif
    """
    const u8 *fence "input_fence"(const char *data, size_t size) nogil
    void unfence "input_unfence"(const u8 *data) nogil
