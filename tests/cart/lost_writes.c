/* What a power cut would leave of a folder, kept while a process runs (LD_PRELOAD).
 *
 * A killed process does not lose what the kernel still holds in memory, and a power cut does. So for
 * everything under LOST_WRITES_ROOT, fsync and fdatasync here record what is durable from then on,
 * and nothing else does:
 *   a file       its content, as LOST_WRITES_SHADOW/files/<key>
 *   a directory  its names, as LOST_WRITES_SHADOW/dirs/<key>, one line "<key> d|f <name>" for each
 * <key> is inode and time of birth, so a file keeps its key when it is renamed. A record is complete
 * before the call returns; one that is interrupted has part of a file's blocks, as a disk would, and
 * all names of a directory or none of the new ones. power_cut.py rebuilds the folder from the records. The disk itself is never asked to sync: the tests are faster for it.
 * Left out, and so never durable: sync, syncfs, sync_file_range, msync, O_SYNC.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    dprintf(2, "lost_writes: %s: %s\n", what, strerror(errno));
    _exit(99);  /* a record that is missing would be taken for a fault of what is tested */
}

static void key_of(int folder, const char *name, char *key, size_t size, int *is_folder) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(folder, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found) != 0) {
        *key = '\0';  /* removed meanwhile */
        if (errno != ENOENT) die("statx");
        return;
    }
    long long born = found.stx_mask & STATX_BTIME ? found.stx_btime.tv_sec : 0;
    unsigned born_ns = found.stx_mask & STATX_BTIME ? found.stx_btime.tv_nsec : 0;
    snprintf(key, size, "%llu-%lld.%09u", (unsigned long long)found.stx_ino, born, born_ns);
    *is_folder = S_ISDIR(found.stx_mode);
}

/* For power_cut.py, whose Python knows no time of birth; 0 if there is no such file. */
int lost_writes_key(const char *path, char *key, size_t size) {
    int is_folder;
    key_of(AT_FDCWD, path, key, size, &is_folder);
    return *key != '\0';
}

static void copy_content(int from, const char *record) {
    /* The descriptor itself is read where that is allowed: opening and closing the file once more
     * would drop the locks that SQLite holds on it in this process. */
    static char now[1 << 18], before[1 << 18];
    int own = -1;
    if ((fcntl(from, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", from);
        if ((own = from = open(path, O_RDONLY | O_CLOEXEC)) < 0) die("open again");
    }
    int to = open(record, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (to < 0) die("open record");
    off_t at = 0;
    ssize_t n;
    while ((n = pread(from, now, sizeof now, at)) > 0) {
        if (pread(to, before, n, at) != n || memcmp(now, before, n) != 0)
            if (pwrite(to, now, n, at) != n) die("write record");
        at += n;
    }
    if (n < 0 || ftruncate(to, at) != 0) die("copy");
    close(to);
    if (own >= 0) close(own);
}

static void list_names(int folder, int to) {
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = again < 0 ? NULL : fdopendir(again);
    if (names == NULL) die("list");
    struct dirent *entry;
    while ((entry = readdir(names)) != NULL) {
        char key[64];
        int is_folder = 0;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        key_of(folder, entry->d_name, key, sizeof key, &is_folder);
        if (*key) dprintf(to, "%s %c %s\n", key, is_folder ? 'd' : 'f', entry->d_name);
    }
    closedir(names);
}

static void record(int fd, const char *shadow) {
    char key[64], part[PATH_MAX], whole[PATH_MAX], lock[PATH_MAX];
    int is_folder = 0;
    snprintf(lock, sizeof lock, "%s/lock", shadow);
    snprintf(part, sizeof part, "%s/part.%d", shadow, getpid());
    /* In turns, so that an older content never takes the place of a newer one. */
    pthread_mutex_lock(&one_at_a_time);
    int turn = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (turn < 0 || flock(turn, LOCK_EX) != 0) die("lock");
    key_of(fd, "", key, sizeof key, &is_folder);
    snprintf(whole, sizeof whole, "%s/%s/%s", shadow, is_folder ? "dirs" : "files", key);
    if (is_folder) {
        int to = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (to < 0) die("open part");
        list_names(fd, to);
        close(to);
        if (rename(part, whole) != 0) die("rename");
    } else {
        copy_content(fd, whole);
    }
    close(turn);
    pthread_mutex_unlock(&one_at_a_time);
}

static int synced(int fd, long number) {
    const char *root = getenv("LOST_WRITES_ROOT"), *shadow = getenv("LOST_WRITES_SHADOW");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root && shadow ? readlink(link, path, sizeof path - 1) : -1;
    if (length > 0) {
        size_t n = strlen(root);
        path[length] = '\0';
        if (strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0')) {
            record(fd, shadow);
            return 0;
        }
    }
    return (int)syscall(number, fd);
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
