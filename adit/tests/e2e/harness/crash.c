/* A process that dies at the CRASH_AT-th step of what it does to files whose names contain CRASH_FILE: making, writing,
   syncing, truncating, renaming or removing one, or syncing the folder CRASH_DIR. Of what is written then, half is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char watched[1 << 20];
static int steps;

/* Counts a step, and tells whether it is the last one. */
static int is_last(void) {
    return __atomic_add_fetch(&steps, 1, __ATOMIC_SEQ_CST) == atoi(getenv("CRASH_AT"));
}

static void step(void) {
    if (is_last())
        _exit(137);
}

static int is_named(const char *path) {
    return path && strstr(path, getenv("CRASH_FILE")) != NULL;
}

static int is_watched(int file) {
    return file >= 0 && file < (int)sizeof watched && watched[file];
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    if (flags & O_CREAT && is_named(path))
        step();
    int file = REAL(open64)(path, flags, mode);
    if (file >= 0 && file < (int)sizeof watched)
        watched[file] = is_named(path) || strcmp(path, getenv("CRASH_DIR")) == 0;
    return file;
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (is_watched(file) && is_last()) {
        REAL(write)(file, bytes, length / 2);
        _exit(137);
    }
    return REAL(write)(file, bytes, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    if (is_watched(file) && is_last()) {
        REAL(pwrite64)(file, bytes, length / 2, at);
        _exit(137);
    }
    return REAL(pwrite64)(file, bytes, length, at);
}

int ftruncate64(int file, off64_t length) {
    if (is_watched(file))
        step();
    return REAL(ftruncate64)(file, length);
}

int fsync(int file) {
    if (is_watched(file))
        step();
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    if (is_watched(file))
        step();
    return REAL(fdatasync)(file);
}

int rename(const char *from, const char *to) {
    if (is_named(to))
        step();
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (is_named(path))
        step();
    return REAL(unlink)(path);
}
