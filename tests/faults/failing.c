/* Lets calls that concern one file fail as a disk would.

   Preloaded (LD_PRELOAD), it reads from the file that FAULTS names which kind of call is to fail:
   "sync", "folder" (the sync of one), "write", "full", "rename" or "unlink". An empty or missing
   file: all is well. Only what has "sessions" in its path is concerned.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd, const char *kind)
{
    char link[64], name[4096], wanted[16] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return 0;
    name[length] = 0;
    if (!strstr(name, "sessions"))
        return 0;
    int faults = syscall(SYS_openat, AT_FDCWD, getenv("FAULTS"), O_RDONLY);
    if (faults < 0)
        return 0;
    ssize_t got = syscall(SYS_read, faults, wanted, sizeof wanted - 1);
    syscall(SYS_close, faults);
    return got > 0 && !strncmp(wanted, kind, strlen(kind));
}

static int refuse(int error)
{
    errno = error;
    return -1;
}

static int is_folder(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

int fsync(int fd)
{
    return fails(fd, is_folder(fd) ? "folder" : "sync") ? refuse(EIO) : syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails(fd, "sync") ? refuse(EIO) : syscall(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (fails(fd, "write"))
        return refuse(EIO);
    if (fails(fd, "full"))
        return refuse(ENOSPC);
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (fails(fd, "write"))
        return refuse(EIO);
    if (fails(fd, "full"))
        return refuse(ENOSPC);
    return syscall(SYS_write, fd, data, size);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return fails(to_at, "rename") ? refuse(EIO) : syscall(SYS_renameat2, from_at, from, to_at, to, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    return fails(at, "unlink") ? refuse(EIO) : syscall(SYS_unlinkat, at, path, flags);
}
