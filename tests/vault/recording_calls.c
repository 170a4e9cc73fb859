/* Log every call that changes a file or folder below RECORDER_ROOT: preloaded by
 * tests/vault/test_durability.py.
 *
 * One record of the log RECORDER_LOG, in the machine's byte order and without gaps:
 *     kind(1) | inode(8) | at(8) | bytes of path(4) | bytes of data(4) | path | data
 * Paths are relative to RECORDER_ROOT, which is "." itself. Kinds, and what the fields mean there:
 *     c a file was created (inode)            w written (inode, at = offset, data)
 *     t truncated or grown (inode, at = size) s flushed (inode; at = 1 for a folder)
 *     m a folder was made                     r renamed (data = the new path)
 *     l linked (data = the new path)          u unlinked, file or folder
 *     ! recorder_mark(data) was called        ? a call that the replay does not know (data = name)
 * Times, modes and locks are left out. A call that failed changed nothing and is left out too. The
 * threads of the recorded process write different files and wait for each other where order matters:
 * two calls that may be logged in another order than they happened do not depend on each other.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATH_BYTES (2 * PATH_MAX + 2)

static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;

__attribute__((constructor)) static void start(void) {
    const char *below = getenv("RECORDER_ROOT"), *log = getenv("RECORDER_LOG");
    if (!below || !log) return;
    root_length = (size_t)snprintf(root, sizeof root, "%s/", below);
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, flags, 0600);
    if (log_fd < 0 || root_length >= sizeof root) abort();
}

static void put(
    char kind, uint64_t inode, uint64_t at, const char *path, const struct iovec *data) {
    char head[25];
    uint32_t lengths[2] = {(uint32_t)strlen(path), (uint32_t)data->iov_len};
    head[0] = kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &at, 8);
    memcpy(head + 17, lengths, 8);
    struct iovec parts[3] = {{head, sizeof head}, {(void *)path, lengths[0]}, *data};
    size_t all = sizeof head + lengths[0] + data->iov_len;
    if ((size_t)syscall(SYS_writev, log_fd, parts, 3) != all) abort();
}

static void put_text(char kind, const char *path, const char *text) {
    struct iovec data = {(void *)text, strlen(text)};
    put(kind, 0, 0, path, &data);
}

/* Return what of an absolute path lies below the root; "." for the root, NULL for elsewhere. */
static const char *below(const char *full) {
    if (log_fd < 0) return NULL;
    if (strlen(full) == root_length - 1 && strncmp(full, root, root_length - 1) == 0) return ".";
    return strncmp(full, root, root_length) == 0 ? full + root_length : NULL;
}

static const char *of_fd(int fd, char *full) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, full, PATH_MAX);
    full[length < 0 ? 0 : length] = 0;
    return below(full);
}

static const char *of_path(int folder, const char *path, char *full) {
    size_t length = 0;
    full[0] = 0;
    if (path[0] != '/') {
        if (folder != AT_FDCWD) of_fd(folder, full);
        else if (!getcwd(full, PATH_MAX)) return NULL;
        length = strlen(full);
        full[length++] = '/';
    }
    snprintf(full + length, PATH_BYTES - length, "%s", path);
    return below(full);
}

static const struct iovec nothing = {NULL, 0};

static void on_fd(char kind, int fd, uint64_t at, const struct iovec *data) {
    char full[PATH_BYTES];
    struct stat status;
    const char *path = of_fd(fd, full);
    if (!path || fstat(fd, &status) != 0) return;
    if (kind == 's') at = S_ISDIR(status.st_mode);
    put(kind, status.st_ino, at, path, data);
}

static void on_path(char kind, int folder, const char *path) {
    char full[PATH_BYTES];
    const char *inside = of_path(folder, path, full);
    if (inside) put(kind, 0, 0, inside, &nothing);
}

/* A move in or out of the root is a call that the replay does not know: it sees half of it. */
static void on_two(char kind, int folder, const char *from, int to_folder, const char *to) {
    char full[PATH_BYTES], other[PATH_BYTES];
    const char *inside = of_path(folder, from, full), *there = of_path(to_folder, to, other);
    if (inside && there) put_text(kind, inside, there);
    else if (inside || there) put_text('?', inside ? inside : there, "a move across the border");
}

static void unknown_fd(int fd, const char *name) {
    char full[PATH_BYTES];
    const char *path = of_fd(fd, full);
    if (path) put_text('?', path, name);
}

static void unknown_path(int folder, const char *text, const char *name) {
    char full[PATH_BYTES];
    const char *path = of_path(folder, text, full);
    if (path) put_text('?', path, name);
}

void recorder_mark(const char *text) {
    if (log_fd >= 0) put_text('!', "", text);
}

#define REAL(type, name, params)                                    \
    static type(*real) params;                                      \
    if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name)

#define WRAP(type, name, params, args, report)                      \
    type name params {                                              \
        REAL(type, name, params);                                   \
        type done = real args;                                      \
        int kept = errno;                                           \
        if (done >= 0) { report; }                                  \
        errno = kept;                                               \
        return done;                                                \
    }

static void pwrote(int fd, const void *data, ssize_t done, off64_t at) {
    struct iovec part = {(void *)data, (size_t)done};
    on_fd('w', fd, (uint64_t)at, &part);
}

static void wrote(int fd, const struct iovec *parts, int count, ssize_t left) {
    off64_t at = lseek(fd, 0, SEEK_CUR) - left; /* after the write: right with O_APPEND, too */
    for (int i = 0; i < count && left > 0; i++) {
        ssize_t part = (ssize_t)parts[i].iov_len < left ? (ssize_t)parts[i].iov_len : left;
        pwrote(fd, parts[i].iov_base, part, at);
        at += part;
        left -= part;
    }
}

WRAP(ssize_t, write, (int fd, const void *d, size_t n), (fd, d, n),
     pwrote(fd, d, done, lseek(fd, 0, SEEK_CUR) - done))
WRAP(ssize_t, writev, (int fd, const struct iovec *p, int n), (fd, p, n), wrote(fd, p, n, done))
WRAP(ssize_t, pwrite, (int fd, const void *d, size_t n, off_t o), (fd, d, n, o),
     pwrote(fd, d, done, o))
WRAP(ssize_t, pwrite64, (int fd, const void *d, size_t n, off64_t o), (fd, d, n, o),
     pwrote(fd, d, done, o))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size), on_fd('t', fd, (uint64_t)size, &nothing))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), on_fd('t', fd, (uint64_t)size, &nothing))
WRAP(int, fsync, (int fd), (fd), on_fd('s', fd, 0, &nothing))
WRAP(int, fdatasync, (int fd), (fd), on_fd('s', fd, 0, &nothing))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), on_path('m', AT_FDCWD, path))
WRAP(int, mkdirat, (int f, const char *path, mode_t mode), (f, path, mode), on_path('m', f, path))
WRAP(int, unlink, (const char *path), (path), on_path('u', AT_FDCWD, path))
WRAP(int, unlinkat, (int f, const char *path, int flags), (f, path, flags), on_path('u', f, path))
WRAP(int, rmdir, (const char *path), (path), on_path('u', AT_FDCWD, path))
WRAP(int, rename, (const char *a, const char *b), (a, b), on_two('r', AT_FDCWD, a, AT_FDCWD, b))
WRAP(int, renameat, (int f, const char *a, int g, const char *b), (f, a, g, b),
     on_two('r', f, a, g, b))
WRAP(int, renameat2, (int f, const char *a, int g, const char *b, unsigned int flags),
     (f, a, g, b, flags),
     if (flags & RENAME_EXCHANGE) unknown_path(f, a, "renameat2"); else on_two('r', f, a, g, b))
WRAP(int, link, (const char *a, const char *b), (a, b), on_two('l', AT_FDCWD, a, AT_FDCWD, b))
WRAP(int, linkat, (int f, const char *a, int g, const char *b, int flags), (f, a, g, b, flags),
     on_two('l', f, a, g, b))

/* What the replay does not model must not go unseen. */
WRAP(int, symlink, (const char *to, const char *path), (to, path),
     unknown_path(AT_FDCWD, path, "symlink"))
WRAP(int, symlinkat, (const char *to, int f, const char *path), (to, f, path),
     unknown_path(f, path, "symlinkat"))
WRAP(int, truncate, (const char *path, off_t size), (path, size),
     unknown_path(AT_FDCWD, path, "truncate"))
WRAP(int, truncate64, (const char *path, off64_t size), (path, size),
     unknown_path(AT_FDCWD, path, "truncate"))
WRAP(int, fallocate, (int fd, int mode, off_t o, off_t n), (fd, mode, o, n),
     unknown_fd(fd, "fallocate"))
WRAP(int, fallocate64, (int fd, int mode, off64_t o, off64_t n), (fd, mode, o, n),
     unknown_fd(fd, "fallocate"))
WRAP(int, posix_fallocate, (int fd, off_t o, off_t n), (fd, o, n),
     unknown_fd(fd, "posix_fallocate"))
WRAP(int, posix_fallocate64, (int fd, off64_t o, off64_t n), (fd, o, n),
     unknown_fd(fd, "posix_fallocate"))
WRAP(ssize_t, pwritev, (int fd, const struct iovec *p, int n, off_t o), (fd, p, n, o),
     unknown_fd(fd, "pwritev"))
WRAP(ssize_t, pwritev64, (int fd, const struct iovec *p, int n, off64_t o), (fd, p, n, o),
     unknown_fd(fd, "pwritev"))
WRAP(ssize_t, pwritev2, (int fd, const struct iovec *p, int n, off_t o, int flags),
     (fd, p, n, o, flags),
     unknown_fd(fd, "pwritev2"))
WRAP(ssize_t, pwritev64v2, (int fd, const struct iovec *p, int n, off64_t o, int flags),
     (fd, p, n, o, flags), unknown_fd(fd, "pwritev2"))
WRAP(ssize_t, sendfile, (int fd, int in, off_t *o, size_t n), (fd, in, o, n),
     unknown_fd(fd, "sendfile"))
WRAP(ssize_t, sendfile64, (int fd, int in, off64_t *o, size_t n), (fd, in, o, n),
     unknown_fd(fd, "sendfile"))
WRAP(ssize_t, copy_file_range,
     (int in, off64_t *i, int fd, off64_t *o, size_t n, unsigned int flags),
     (in, i, fd, o, n, flags), unknown_fd(fd, "copy_file_range"))

static int lies_there(int folder, const char *path, int flags) {
    struct stat status;
    int kept = errno, found = 1;
    if (flags & O_CREAT) found = fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
    errno = kept;
    return found;
}

static int opened(int fd, int lay_there, int flags) {
    int kept = errno;
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE) unknown_fd(fd, "open with O_TMPFILE");
    else if (fd >= 0 && !lay_there) on_fd('c', fd, 0, &nothing);
    else if (fd >= 0 && (flags & O_TRUNC)) on_fd('t', fd, 0, &nothing);
    errno = kept;
    return fd;
}

#define OPEN(name, params, args, folder)                            \
    int name params {                                               \
        REAL(int, name, params);                                    \
        mode_t mode = 0;                                            \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {  \
            va_list more;                                           \
            va_start(more, flags);                                  \
            mode = va_arg(more, mode_t);                            \
            va_end(more);                                           \
        }                                                           \
        int lay_there = lies_there(folder, path, flags);            \
        return opened(real args, lay_there, flags);                 \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(openat, (int f, const char *path, int flags, ...), (f, path, flags, mode), f)
OPEN(openat64, (int f, const char *path, int flags, ...), (f, path, flags, mode), f)

#define CREAT (O_WRONLY | O_CREAT | O_TRUNC)
int creat(const char *path, mode_t mode) { return open(path, CREAT, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, CREAT, mode); }
