/* Notes what a process asks of the disk, and kills it there when told to.

   Preloaded (LD_PRELOAD), it stands between a program and the C library and owns nothing but the
   notes: every call that changes a file in the folder DISK_FOLDER, every sync of one, and every
   byte that is given to a socket is appended to the file DISK_LOG, in the order in which they took
   effect. A sync is noted twice, because what is written while it lasts is not in it. It knows no
   file format; what a power cut would leave is worked out in disk.py, which has the format of the
   notes as well.

   disk_die_at(n, torn) kills the process at the n-th of these calls from now on: before it has any
   effect, or with `torn` when a write or a send has done half of its work. 0 lets it live.

   What it does not see are changes through mmap. SQLite makes them in -shm files alone, of which
   nothing survives a power cut; the test compares all other files with the notes.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 4096

struct note {
    char kind;
    char unused[3];
    int32_t fd;
    int64_t offset;
    int64_t length; /* of what follows */
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char watched[MAX_FDS];
static const char *folder;
static int log_fd = -1;
static long calls_to_live;
static int dies_torn;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("DISK_LOG");
    folder = getenv("DISK_FOLDER");
    if (folder != NULL && log != NULL)
        log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_watched(int fd) { return fd >= 0 && fd < MAX_FDS && watched[fd]; }

static int is_ours(const char *path)
{
    return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static void note(char kind, int fd, int64_t offset, const void *data, int64_t length)
{
    struct note head = {kind, {0}, fd, offset, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    if (log_fd >= 0 && syscall(SYS_writev, log_fd, parts, 2) != (ssize_t)(sizeof head + length))
        abort();
}

void disk_die_at(long n, int torn)
{
    pthread_mutex_lock(&lock);
    calls_to_live = n;
    dies_torn = torn;
    pthread_mutex_unlock(&lock);
}

/* Calls are made and noted one at a time, and death comes within: whatever was done was noted. */

static int enter(int can_be_torn)
{
    pthread_mutex_lock(&lock);
    int is_last = calls_to_live > 0 && --calls_to_live == 0;
    if (is_last && !(dies_torn && can_be_torn))
        kill(getpid(), SIGKILL);
    return is_last;
}

static void leave(int is_last)
{
    if (is_last)
        kill(getpid(), SIGKILL);
    pthread_mutex_unlock(&lock);
}

/* --- files ------------------------------------------------------------------------------------ */

/* The path of a name in an open folder, or from here. */
static const char *whole(int at, const char *name, char path[PATH_MAX])
{
    char link[64];
    ssize_t length = 0;
    if (at != AT_FDCWD && name[0] != '/') {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = readlink(link, path, PATH_MAX - 1);
        if (length < 0)
            abort();
        path[length++] = '/';
    }
    if (length + strlen(name) >= PATH_MAX)
        abort();
    strcpy(path + length, name);
    return path;
}

static void opened(int fd, const char *path, int flags)
{
    if (fd < 0 || fd >= MAX_FDS || !is_ours(path))
        return;
    watched[fd] = 1;
    note('O', fd, flags, path, strlen(path));
}

#define DEFINE_OPEN(name)                                                                          \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                  \
        va_end(rest);                                                                              \
        pthread_mutex_lock(&lock);                                                                 \
        int fd = REAL(name)(path, flags, mode);                                                    \
        opened(fd, path, flags);                                                                   \
        pthread_mutex_unlock(&lock);                                                               \
        return fd;                                                                                 \
    }

DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int openat64(int at, const char *name, int flags, ...)
{
    char path[PATH_MAX];
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    pthread_mutex_lock(&lock);
    int fd = REAL(openat64)(at, name, flags, mode);
    opened(fd, whole(at, name, path), flags);
    pthread_mutex_unlock(&lock);
    return fd;
}

int close(int fd)
{
    pthread_mutex_lock(&lock);
    if (is_watched(fd)) {
        watched[fd] = 0;
        note('C', fd, 0, NULL, 0);
    }
    int result = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t length, int64_t offset)
{
    int is_last = enter(1);
    ssize_t done = REAL(pwrite64)(fd, data, is_last ? length / 2 : length, offset);
    if (done > 0)
        note('W', fd, offset, data, done);
    leave(is_last);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    if (!is_watched(fd))
        return REAL(pwrite64)(fd, data, length, offset);
    return write_at(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite64(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length)
{
    if (!is_watched(fd))
        return REAL(write)(fd, data, length);
    int is_appended = fcntl(fd, F_GETFL) & O_APPEND;
    off64_t offset = lseek64(fd, 0, is_appended ? SEEK_END : SEEK_CUR);
    ssize_t done = write_at(fd, data, length, offset);
    if (done > 0)
        lseek64(fd, offset + done, SEEK_SET);
    return done;
}

int ftruncate64(int fd, off64_t size)
{
    if (!is_watched(fd))
        return REAL(ftruncate64)(fd, size);
    int is_last = enter(0);
    int result = REAL(ftruncate64)(fd, size);
    if (result == 0)
        note('T', fd, size, NULL, 0);
    leave(is_last);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*sync)(int))
{
    if (!is_watched(fd))
        return sync(fd);
    int is_last = enter(0);
    note('S', fd, 0, NULL, 0);
    leave(is_last);
    int result = sync(fd);
    pthread_mutex_lock(&lock);
    if (result == 0)
        note('E', fd, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int unlinkat(int at, const char *name, int flags)
{
    char path[PATH_MAX];
    if (!is_ours(whole(at, name, path)))
        return REAL(unlinkat)(at, name, flags);
    int is_last = enter(0);
    int result = REAL(unlinkat)(at, name, flags);
    if (result == 0)
        note('U', -1, 0, path, strlen(path));
    leave(is_last);
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    char both[2 * PATH_MAX], target[PATH_MAX];
    if (!is_ours(whole(to_at, to, target)))
        return REAL(renameat)(from_at, from, to_at, to);
    size_t first = strlen(whole(from_at, from, both)) + 1, second = strlen(target);
    memcpy(both + first, target, second);
    int is_last = enter(0);
    int result = REAL(renameat)(from_at, from, to_at, to);
    if (result == 0)
        note('R', -1, first, both, first + second);
    leave(is_last);
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int mkdir(const char *path, mode_t mode)
{
    if (!is_ours(path))
        return REAL(mkdir)(path, mode);
    int is_last = enter(0);
    int result = REAL(mkdir)(path, mode);
    if (result == 0)
        note('M', -1, 0, path, strlen(path));
    leave(is_last);
    return result;
}

/* --- sockets ---------------------------------------------------------------------------------- */

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    int is_last = enter(1);
    ssize_t done = REAL(send)(fd, data, is_last ? length / 2 : length, flags);
    if (done > 0)
        note('A', fd, 0, data, done);
    leave(is_last);
    return done;
}

/* Of several pieces the first is sent: whoever sends has to see to the rest anyway. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    for (size_t i = 0; i < message->msg_iovlen && message->msg_controllen == 0; i++)
        if (message->msg_iov[i].iov_len > 0)
            return send(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len, flags);
    return REAL(sendmsg)(fd, message, flags);
}
