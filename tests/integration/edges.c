/* Which edges of a build made with -fsanitize-coverage=trace-pc were passed, for a fuzzer.

   gcc has each basic block of such a build call __sanitizer_cov_trace_pc. An edge is the pair of
   two blocks that follow on each other, and how often it was passed counts by powers of two, as
   AFL counts. Preloaded, so that the build finds the function; built without coverage itself. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SIZE = 1 << 16 };

static uint8_t now[SIZE];
static uint8_t ever[SIZE];
static uintptr_t last;
static int listening;

void __sanitizer_cov_trace_pc(void)
{
    if (!listening)
        return;
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    uint32_t place = (uint32_t)(((here ^ (last << 1)) * 0x9E3779B97F4A7C15ull) >> 48);
    if (now[place] != 255)
        now[place]++;
    last = here;
}

void edges_begin(void)
{
    memset(now, 0, SIZE);
    last = 0;
    listening = 1;
}

static uint8_t bucket(uint8_t count)
{
    return count < 3 ? count : count == 3 ? 4 : count < 8 ? 8 : count < 16 ? 16
         : count < 32 ? 32 : count < 128 ? 64 : 128;
}

/* What was passed since edges_begin for the first time: edges, and counts of known ones. */
int edges_end(void)
{
    int news = 0;
    listening = 0;
    for (size_t at = 0; at < SIZE; at++) {
        uint8_t seen = now[at] ? bucket(now[at]) : 0;
        if (seen & ~ever[at]) {
            news++;
            ever[at] |= seen;
        }
    }
    return news;
}

int edges_known(void)
{
    int known = 0;
    for (size_t at = 0; at < SIZE; at++)
        known += ever[at] != 0;
    return known;
}
