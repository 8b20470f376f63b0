/* A disk that is full when the test says so, for one server.
 *
 * Preloaded into the server (LD_PRELOAD). While the file named by FULL_DISK_FLAG exists, whatever
 * would make a file longer whose path has FULL_DISK_PATH in it fails with ENOSPC; what is
 * there already can be overwritten, as on a real disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd, off_t end)
{
    const char *flag = getenv("FULL_DISK_FLAG"), *part = getenv("FULL_DISK_PATH");
    char link[64], path[4096];
    struct stat file;
    ssize_t size;

    if (flag == NULL || part == NULL || access(flag, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = '\0';
    if (strstr(path, part) == NULL || fstat(fd, &file) != 0 || !S_ISREG(file.st_mode))
        return 0;
    return end < 0 || end > file.st_size;
}

/* Where a write that names no place ends; 0 where there are no places, as in a pipe. */
static off_t behind(int fd, off_t size)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : at + size;
}

static off_t size_of(const struct iovec *pieces, int count)
{
    off_t size = 0;
    for (int i = 0; i < count; i++)
        size += (off_t)pieces[i].iov_len;
    return size;
}

#define REAL(result, name, ...)                                                     \
    static result (*real)(__VA_ARGS__);                                             \
    int before = errno;                                                             \
    if (real == NULL)                                                               \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);                      \
    errno = before

#define REFUSE_WHEN_FULL(fd, end)                                                   \
    if (is_full(fd, end)) {                                                         \
        errno = ENOSPC;                                                             \
        return -1;                                                                  \
    }                                                                               \
    errno = before

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    REFUSE_WHEN_FULL(fd, behind(fd, (off_t)size));
    return real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    REFUSE_WHEN_FULL(fd, at + (off_t)size);
    return real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    REFUSE_WHEN_FULL(fd, at + (off_t)size);
    return real(fd, data, size, at);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at)
{
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    REFUSE_WHEN_FULL(fd, at + size_of(pieces, count));
    return real(fd, pieces, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off_t at)
{
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
    REFUSE_WHEN_FULL(fd, at + size_of(pieces, count));
    return real(fd, pieces, count, at);
}

int fallocate(int fd, int mode, off_t at, off_t size)
{
    REAL(int, "fallocate", int, int, off_t, off_t);
    REFUSE_WHEN_FULL(fd, at + size);
    return real(fd, mode, at, size);
}

int fallocate64(int fd, int mode, off_t at, off_t size)
{
    REAL(int, "fallocate64", int, int, off_t, off_t);
    REFUSE_WHEN_FULL(fd, at + size);
    return real(fd, mode, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    REAL(int, "posix_fallocate", int, off_t, off_t);
    return is_full(fd, at + size) ? ENOSPC : real(fd, at, size);
}

int posix_fallocate64(int fd, off_t at, off_t size)
{
    REAL(int, "posix_fallocate64", int, off_t, off_t);
    return is_full(fd, at + size) ? ENOSPC : real(fd, at, size);
}

int ftruncate(int fd, off_t size)
{
    REAL(int, "ftruncate", int, off_t);
    REFUSE_WHEN_FULL(fd, size);
    return real(fd, size);
}

int ftruncate64(int fd, off_t size)
{
    REAL(int, "ftruncate64", int, off_t);
    REFUSE_WHEN_FULL(fd, size);
    return real(fd, size);
}
