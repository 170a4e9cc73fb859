/* Die at, or refuse, the n-th call that changes a file: preloaded by tests/vault/test_crash.py.
 *
 * shim_arm(n, what): what 1 = die before the n-th call, 2 = die after it, 3 = refuse it (fsync with
 * EIO, all others with ENOSPC). shim_disarm() returns how many calls were counted, shim_log() their
 * letters in order: w write, f fsync of a file, F fsync of a folder, r rename, u unlink, t truncate;
 * of sealed files and their folders p write, s fsync of a file, S fsync of a folder. Several threads
 * may call: each call is counted once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int armed, what, count, target;
static char letters[4096];

void shim_arm(int n, int mode) { count = 0; target = n; what = mode; armed = 1; }
int shim_disarm(void) { armed = 0; return count; }
const char *shim_log(void) { letters[count < 4095 ? count : 4095] = 0; return letters; }

static int hit(char letter) {
    if (!armed) return 0;
    int number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (number <= 4095) letters[number - 1] = letter;
    return number == target;
}

static int is_sealed(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return strstr(path, "/incoming") || strstr(path, "/blobs");
}

static char write_letter(int fd) { return is_sealed(fd) ? 'p' : 'w'; }

static char sync_letter(int fd) {
    struct stat status;
    int folder = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    return is_sealed(fd) ? (folder ? 'S' : 's') : folder ? 'F' : 'f';
}

#define WRAP(letter, type, name, params, args, error)                           \
    type name params {                                                          \
        static type(*real) params;                                              \
        if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name);              \
        if (!hit(letter)) return real args;                                           \
        if (what == 3) { errno = error; return -1; }                            \
        if (what == 1) _exit(137);                                              \
        (void)!real args;                                                       \
        _exit(137);                                                             \
    }

WRAP(write_letter(fd), ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), ENOSPC)
WRAP(write_letter(fd), ssize_t, pwrite, (int fd, const void *d, size_t n, off_t o), (fd, d, n, o), ENOSPC)
WRAP(write_letter(fd), ssize_t, pwrite64, (int fd, const void *d, size_t n, off64_t o), (fd, d, n, o), ENOSPC)
WRAP(sync_letter(fd), int, fsync, (int fd), (fd), EIO)
WRAP(sync_letter(fd), int, fdatasync, (int fd), (fd), EIO)
WRAP('r', int, rename, (const char *from, const char *to), (from, to), ENOSPC)
WRAP('r', int, renameat, (int a, const char *f, int b, const char *t), (a, f, b, t), ENOSPC)
WRAP('u', int, unlink, (const char *path), (path), EIO)
WRAP('u', int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), EIO)
WRAP('t', int, ftruncate, (int fd, off_t size), (fd, size), EIO)
WRAP('t', int, ftruncate64, (int fd, off64_t size), (fd, size), EIO)
