/* Preloaded by tests/processes/faked_time.rs: the system's clocks as a test sets them.
 *
 * The file that FAKED_TIME names holds two numbers of eight bytes, which the test changes while the
 * process runs: by how many nanoseconds the time elapsed is ahead, and by how many more the wall
 * clock is. CLOCK_MONOTONIC is left alone, because the kernel measures waits by it. The file that
 * FAKED_BOOT names stands for the id of this start of the system.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead(void)
{
    static const volatile int64_t none[2];
    static const volatile int64_t *offsets;
    if (!offsets) {
        const char *path = getenv("FAKED_TIME");
        int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
        void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
        if (fd >= 0)
            close(fd);
        offsets = map == MAP_FAILED ? none : map;
    }
    return offsets;
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    int failed = (int)syscall(SYS_clock_gettime, id, at);
    int is_wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    if (failed || !(is_wall || id == CLOCK_BOOTTIME))
        return failed;
    int64_t ns = at->tv_nsec + ahead()[0] + (is_wall ? ahead()[1] : 0);
    at->tv_sec += ns / 1000000000;
    ns %= 1000000000;
    if (ns < 0) {
        ns += 1000000000;
        at->tv_sec -= 1;
    }
    at->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    const char *boot = getenv("FAKED_BOOT");
    if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
        path = boot;
    return next(path, flags, mode);
}

#define OPEN(name)                                         \
    int name(const char *path, int flags, ...)             \
    {                                                      \
        va_list more;                                      \
        va_start(more, flags);                             \
        mode_t mode = flags & O_CREAT ? va_arg(more, int) : 0; \
        va_end(more);                                      \
        return opened(#name, path, flags, mode);           \
    }

OPEN(open)
#undef open64
OPEN(open64)
