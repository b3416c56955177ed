/* Put in front of libc (LD_PRELOAD) by tests: calls on files that fail, or wait.
 *
 * FILE_FAULT="CALL PATTERN FIRST LAST ACTION": of the calls CALL (open for writing, write, fsync, rename) on paths like PATTERN (of rename:
 * the old name), those with the numbers FIRST to LAST do ACTION: a name of an error to fail with, or "wait", to go on as soon as the file
 * FILE_FAULT_GO is there. What was done is appended to the file FILE_FAULT_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_NAPS = 6000, NAP_MICROSECONDS = 10000 };

static struct {
    char call[16], pattern[256], action[16];
    long first, last;
} fault;
static atomic_long calls;

__attribute__((constructor)) static void read_fault(void) {
    const char *text = getenv("FILE_FAULT");
    if (text == NULL || sscanf(text, "%15s %255s %ld %ld %15s", fault.call, fault.pattern, &fault.first, &fault.last, fault.action) != 5)
        fault.call[0] = '\0';
}

static void tell(const char *what, const char *path, int error) {
    const char *log = getenv("FILE_FAULT_LOG");
    int fd = log != NULL ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (fd >= 0) {
        dprintf(fd, "%s %s: %s\n", what, path, error != 0 ? strerrorname_np(error) : "ok");
        close(fd);
    }
}

static int number_of(const char *name) {
    for (int error = 1; error < 200; error++)
        if (strerrorname_np(error) != NULL && strcmp(strerrorname_np(error), name) == 0)
            return error;
    return EIO;
}

static void wait_for_go(const char *call, const char *path) {
    tell("waits", path, 0);
    for (int i = 0; i < MOST_NAPS && access(getenv("FILE_FAULT_GO"), F_OK) != 0; i++)
        usleep(NAP_MICROSECONDS);
    tell(call, path, 0);
}

/* The error that a call is to fail with; 0: none. *waited: it was held up. */
static int error_of(const char *call, const char *path, int *waited) {
    *waited = 0;
    if (strcmp(call, fault.call) != 0 || fnmatch(fault.pattern, path, 0) != 0)
        return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (number < fault.first || number > fault.last)
        return 0;
    if (strcmp(fault.action, "wait") == 0) {
        *waited = 1;
        wait_for_go(call, path);
        return 0;
    }
    int error = number_of(fault.action);
    tell(call, path, error);
    return error;
}

static int error_of_fd(const char *call, int fd) {
    char link[64], path[4096];
    int waited;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = strcmp(call, fault.call) == 0 ? readlink(link, path, sizeof path - 1) : -1;
    if (n < 0)
        return 0;
    path[n] = '\0';
    return error_of(call, path, &waited);
}

#define FAIL_IF(error)                                                                                                                     \
    do {                                                                                                                                   \
        int found = (error);                                                                                                               \
        if (found != 0) {                                                                                                                  \
            errno = found;                                                                                                                 \
            return -1;                                                                                                                     \
        }                                                                                                                                  \
    } while (0)

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t n) {
    FAIL_IF(error_of_fd("write", fd));
    return NEXT(write)(fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    FAIL_IF(error_of_fd("write", fd));
    return NEXT(pwrite)(fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    FAIL_IF(error_of_fd("write", fd));
    return NEXT(pwrite64)(fd, bytes, n, at);
}

int fsync(int fd) {
    FAIL_IF(error_of_fd("fsync", fd));
    return NEXT(fsync)(fd);
}

int rename(const char *from, const char *to) {
    int waited;
    FAIL_IF(error_of("rename", from, &waited));
    int result = NEXT(rename)(from, to), error = errno;
    if (waited)
        tell("late rename", from, result < 0 ? error : 0);
    errno = error;
    return result;
}

static int open_error(const char *path, int flags) {
    int waited;
    return (flags & O_ACCMODE) == O_RDONLY ? 0 : error_of("open", path, &waited);
}

static mode_t mode_of(int flags, va_list more) { return (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    FAIL_IF(open_error(path, flags));
    return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    FAIL_IF(open_error(path, flags));
    return NEXT(open64)(path, flags, mode);
}
