/* Lets calls that concern one file fail as a disk would.

   Preloaded (LD_PRELOAD), it reads from the file that FAULTS names which kind of call is to fail:
   "sync", "write" or "full". An empty or missing file: all is well. Only files with "sessions.db"
   in their names are concerned.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    if (!strstr(name, "sessions.db"))
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

int fsync(int fd)
{
    return fails(fd, "sync") ? refuse(EIO) : syscall(SYS_fsync, fd);
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
