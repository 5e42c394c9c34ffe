/* Lets the syncs of a process fail, or the cutting of its files, that preloads this object.
 *
 * Two bytes of a mapping of the file that DISK_SHIM_FILE names, read at each call: whether fsync and fdatasync fail, and
 * whether ftruncate does, all with EIO. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile char well[2];
static const volatile char *state = well;

__attribute__((constructor)) static void map_state(void) {
    const char *path = getenv("DISK_SHIM_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, 2, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) state = page;
    close(fd);
}

static int ill(void) {
    errno = EIO;
    return -1;
}

int fsync(int fd) { return state[0] ? ill() : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return state[0] ? ill() : (int)syscall(SYS_fdatasync, fd); }

int ftruncate64(int fd, off64_t len) { return state[1] ? ill() : (int)syscall(SYS_ftruncate, fd, len); }
