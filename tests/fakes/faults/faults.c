/* Faults of the machine below a program, for LD_PRELOAD: a disk that fails or hangs, a wall clock that jumps, a
 * file that says something else, and SIGKILL right before, within or right after a planned call.
 *
 * What is to go wrong stands in the memory-mapped file that FAULTS_CONTROL names; steering.py writes it while the
 * program runs, and describes its fields. What came of it is told there too, and outlives the program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { NONE = 0, WRITE = 1, SYNC = 2, SEND = 3 }; /* kill_call */
enum { BEFORE = 1, WITHIN = 2, AFTER = 3 };       /* kill_when */
enum { TEXT = 256 };
#define EXPORT __attribute__((visibility("default")))

typedef struct {
    int64_t size;
    char disk[TEXT];
    int64_t write_error, sync_error, sync_delay_ms;
    char kill_path[TEXT];
    int64_t kill_call, kill_when, kill_count;
    int64_t wall_offset_ns, boot_offset_ns;
    char redirect_from[TEXT], redirect_to[TEXT];
    /* From here on written by the program alone. */
    int64_t seen, killed_at_ns, failed, syncing, wall_waits;
} Control;

static Control *volatile control;

static void *find(void **kept, const char *name) {
    if (*kept == NULL) *kept = dlsym(RTLD_NEXT, name);
    return *kept;
}
#define REAL(name) (__extension__({ static void *kept; (__typeof__(&name))find(&kept, #name); }))

static void attach(void) __attribute__((constructor));
static void attach(void) {
    const char *path = getenv("FAULTS_CONTROL");
    if (path == NULL) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED || ((Control *)mapped)->size != (int64_t)sizeof(Control)) {
        fprintf(stderr, "faults: %s is not a control file of this version\n", path);
        abort(); /* a test that meets no faults would prove nothing */
    }
    close(fd);
    control = mapped;
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* -- which file or socket -- */

static const char *path_of(int fd, char *room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, room, PATH_MAX - 1);
    room[length < 0 ? 0 : length] = 0;
    return room;
}

static int on_disk(int fd) {
    char room[PATH_MAX];
    return control->disk[0] && strstr(path_of(fd, room), control->disk) != NULL;
}

/* A connection of somebody's; a socket pair without a name, by which threads wake each other, is none. */
static int is_connection(int fd) {
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISSOCK(about.st_mode)) return 0;
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) return 0;
    struct sockaddr_storage name = {0};
    size = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &size) != 0) return 0;
    return name.ss_family != AF_UNIX || size > sizeof(sa_family_t);
}

static int is_meant(int call, int fd) {
    if (call == SEND) return is_connection(fd);
    char room[PATH_MAX];
    const char *path = path_of(fd, room);
    size_t length = strlen(path), wanted = strlen(control->kill_path);
    return length >= wanted && strcmp(path + length - wanted, control->kill_path) == 0;
}

/* -- SIGKILL -- */

static void die(void) {
    control->killed_at_ns = monotonic_ns();
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* When the program is to die, if this is the call for it; dies at once where that is before. */
static int64_t reach(int call, int fd) {
    if (control == NULL || control->kill_call != call) return NONE;
    int error = errno;
    int meant = is_meant(call, fd);
    errno = error;
    if (!meant || __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST) != control->kill_count) return NONE;
    if (control->kill_when == BEFORE) die();
    return control->kill_when;
}

static void leave(int64_t when) {
    if (when != NONE) die();
}

/* -- a disk that fails -- */

static int fails(int fd, int64_t error) {
    if (error == 0 || !on_disk(fd)) return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = (int)error;
    return 1;
}

static int write_fails(int fd) { return control != NULL && fails(fd, control->write_error); }

static int sync_fails(int fd) {
    if (control == NULL) return 0;
    if (control->sync_delay_ms != 0 && on_disk(fd)) {
        int64_t since = monotonic_ns();
        __atomic_add_fetch(&control->syncing, 1, __ATOMIC_SEQ_CST);
        while (control->sync_delay_ms < 0 || monotonic_ns() - since < control->sync_delay_ms * 1000000) {
            struct timespec moment = {0, 1000000};
            syscall(SYS_nanosleep, &moment, NULL);
        }
        __atomic_sub_fetch(&control->syncing, 1, __ATOMIC_SEQ_CST);
    }
    return fails(fd, control->sync_error);
}

#define SYNCS(name)                                                                                                    \
    EXPORT int name(int fd) {                                                                                          \
        int64_t when = reach(SYNC, fd);                                                                                \
        int result = sync_fails(fd) ? -1 : REAL(name)(fd);                                                             \
        leave(when);                                                                                                   \
        return result;                                                                                                 \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* Killed within, it has written the first half. */
#define PWRITES(name, offset_t)                                                                                        \
    EXPORT ssize_t name(int fd, const void *data, size_t size, offset_t offset) {                                      \
        int64_t when = reach(WRITE, fd);                                                                               \
        ssize_t result = write_fails(fd) ? -1 : REAL(name)(fd, data, when == WITHIN ? size / 2 : size, offset);        \
        leave(when);                                                                                                   \
        return result;                                                                                                 \
    }
PWRITES(pwrite, off_t)
PWRITES(pwrite64, off64_t)

EXPORT ssize_t write(int fd, const void *data, size_t size) {
    int64_t when = reach(WRITE, fd);
    if (when == NONE) when = reach(SEND, fd);
    ssize_t result = write_fails(fd) ? -1 : REAL(write)(fd, data, when == WITHIN ? size / 2 : size);
    leave(when);
    return result;
}

#define TRUNCATES(name, offset_t)                                                                                      \
    EXPORT int name(int fd, offset_t size) { return write_fails(fd) ? -1 : REAL(name)(fd, size); }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define ALLOCATES(name, offset_t)                                                                                      \
    EXPORT int name(int fd, offset_t offset, offset_t size) {                                                          \
        return write_fails(fd) ? errno : REAL(name)(fd, offset, size);                                                 \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

/* -- sending -- */

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    int64_t when = reach(SEND, fd);
    if (when == WITHIN && message->msg_iovlen > 0) {
        struct iovec part = {message->msg_iov[0].iov_base, (message->msg_iov[0].iov_len + 1) / 2};
        struct msghdr first = *message;
        first.msg_iov = &part;
        first.msg_iovlen = 1;
        REAL(sendmsg)(fd, &first, flags);
        die();
    }
    ssize_t result = REAL(sendmsg)(fd, message, flags);
    leave(when);
    return result;
}

EXPORT ssize_t send(int fd, const void *data, size_t size, int flags) {
    int64_t when = reach(SEND, fd);
    ssize_t result = REAL(send)(fd, data, when == WITHIN ? size / 2 : size, flags);
    leave(when);
    return result;
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    int64_t when = reach(SEND, fd);
    ssize_t result = REAL(writev)(fd, parts, count);
    leave(when);
    return result;
}

/* -- the wall clock, and the one that counts from the start of the machine; CLOCK_MONOTONIC is let alone -- */

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

EXPORT int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result != 0 || control == NULL) return result;
    int64_t offset = is_wall(clock) ? control->wall_offset_ns : clock == CLOCK_BOOTTIME ? control->boot_offset_ns : 0;
    if (offset != 0) {
        int64_t shifted = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + offset;
        now->tv_sec = shifted / 1000000000;
        now->tv_nsec = shifted % 1000000000;
    }
    return result;
}

EXPORT int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    if (zone != NULL) memset(zone, 0, sizeof(struct timezone));
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

EXPORT time_t time(time_t *told) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (told != NULL) *told = exact.tv_sec;
    return exact.tv_sec;
}

EXPORT int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

/* Who waits until a time of the wall clock waits by the kernel's, which does not jump here: what would be a fault
 * on a real machine is not seen. So it is counted, for the test to refuse. Times of the other clocks are small. */
static void count_wait(const struct timespec *until) {
    if (control != NULL && until != NULL && until->tv_sec > 1000000000)
        __atomic_add_fetch(&control->wall_waits, 1, __ATOMIC_SEQ_CST);
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                                  const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    /* Without its version, the oldest one is found, which is for conditions of another form. */
    if (real == NULL) *(void **)&real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    count_wait(until);
    return real(condition, mutex, until);
}

EXPORT int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    count_wait(until);
    return REAL(sem_timedwait)(semaphore, until);
}

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    if ((flags & TIMER_ABSTIME) && is_wall(clock)) count_wait(until);
    return REAL(clock_nanosleep)(clock, flags, until, left);
}

EXPORT long syscall(long number, ...) {
    long a[6];
    va_list given;
    va_start(given, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(given, long);
    va_end(given);
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME)) count_wait((const struct timespec *)a[3]);
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* -- a file that says something else -- */

static const char *instead_of(const char *path) {
    if (control == NULL || !control->redirect_from[0] || path == NULL) return path;
    return strcmp(path, control->redirect_from) == 0 ? control->redirect_to : path;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list given;                                                                                                 \
        va_start(given, flags);                                                                                        \
        mode = va_arg(given, mode_t);                                                                                  \
        va_end(given);                                                                                                 \
    }
#define OPENS(name)                                                                                                    \
    EXPORT int name(const char *path, int flags, ...) {                                                                \
        MODE(flags)                                                                                                    \
        return REAL(name)(instead_of(path), flags, mode);                                                              \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                                                 \
    EXPORT int name(int folder, const char *path, int flags, ...) {                                                    \
        MODE(flags)                                                                                                    \
        return REAL(name)(folder, instead_of(path), flags, mode);                                                      \
    }
OPENS_AT(openat)
OPENS_AT(openat64)
