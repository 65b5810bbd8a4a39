/* Counts the file system calls that name a path below $SLOW_BELOW, and makes each take $SLOW_US
   microseconds, as over a network. At its end, the process adds its count to the file $SLOW_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long calls;

static void called(const char *path) {
    const char *below = getenv("SLOW_BELOW"), *us = getenv("SLOW_US");
    if (!below || !path || strncmp(path, below, strlen(below)))
        return;
    __sync_fetch_and_add(&calls, 1);
    if (us && atoi(us))
        usleep(atoi(us));
}

__attribute__((destructor)) static void report(void) {
    const char *name = getenv("SLOW_COUNT");
    FILE *file = name ? fopen(name, "a") : NULL;
    if (file) {
        fprintf(file, "%ld\n", calls);
        fclose(file);
    }
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = va_arg(more, mode_t);                          \
        va_end(more);                                                \
        called(path);                                                \
        return REAL(name)(path, flags, mode);                        \
    }
#define OPENAT(name)                                                 \
    int name(int folder, const char *path, int flags, ...) {         \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = va_arg(more, mode_t);                          \
        va_end(more);                                                \
        called(path);                                                \
        return REAL(name)(folder, path, flags, mode);                \
    }
#define STAT(name, type)                                             \
    int name(const char *path, struct type *found) {                 \
        called(path);                                                \
        return REAL(name)(path, found);                              \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
int fstatat(int folder, const char *path, struct stat *found, int flags) {
    called(path);
    return REAL(fstatat)(folder, path, found, flags);
}
int fstatat64(int folder, const char *path, struct stat64 *found, int flags) {
    called(path);
    return REAL(fstatat64)(folder, path, found, flags);
}
int access(const char *path, int mode) {
    called(path);
    return REAL(access)(path, mode);
}
int faccessat(int folder, const char *path, int mode, int flags) {
    called(path);
    return REAL(faccessat)(folder, path, mode, flags);
}
DIR *opendir(const char *path) {
    called(path);
    return REAL(opendir)(path);
}
ssize_t readlink(const char *path, char *text, size_t size) {
    called(path);
    return REAL(readlink)(path, text, size);
}
