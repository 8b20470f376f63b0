/* A wall clock that is wrong by as much as the test says, for one server, and may jump.
 *
 * Preloaded into the server (LD_PRELOAD). The file named by OTHER_CLOCK holds how many nanoseconds
 * to add, as eight bytes; it is looked at whenever the time is asked for. The monotonic clocks stay
 * as they are, and so do waits until a moment of the wall clock, which are turned back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t *ahead;

static int64_t wrong_by(void)
{
    return ahead ? *ahead : 0;
}

__attribute__((constructor)) static void open_file(void)
{
    const char *name = getenv("OTHER_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *there;

    if (file < 0)
        return;
    there = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (there != MAP_FAILED)
        ahead = there;
}

static struct timespec moved(struct timespec when, int64_t by)
{
    int64_t total = when.tv_sec * SECOND + when.tv_nsec + by;
    struct timespec result = {.tv_sec = total / SECOND, .tv_nsec = total % SECOND};
    return result;
}

/* The libraries' own; of several versions of a symbol the one that programs are linked with now. */
static void *real(const char *symbol, const char *version)
{
    void *found = version ? dlvsym(RTLD_NEXT, symbol, version) : NULL;
    return found ? found : dlsym(RTLD_NEXT, symbol);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*ask)(clockid_t, struct timespec *);
    int result;

    if (!ask)
        ask = real("clock_gettime", NULL);
    result = ask(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *now = moved(*now, wrong_by());
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec exact;

    clock_gettime(CLOCK_REALTIME, &exact);
    if (result)
        *result = exact.tv_sec;
    return exact.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec then = moved(*until, -wrong_by());

    if (!wait)
        wait = real("pthread_cond_timedwait", "GLIBC_2.3.2");
    return wait(condition, mutex, &then);
}
