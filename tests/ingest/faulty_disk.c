/* The C library's calls that make a segment durable, failing on demand.

   Loaded with LD_PRELOAD into a real node. The file that FAULTY_DISK names says what happens to
   segments from now on: "EIO" or "ENOSPC" (fdatasync fails with it after the data is written),
   "stall" (fdatasync does not return until the file says something else), "short" (write and writev
   take half of what they are given), "directory" (fsync of the directory of open segments fails);
   anything else, or no file: nothing. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int says(const char *word) {
    char text[16] = {0};
    const char *name = getenv("FAULTY_DISK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    return got > 0 && strncmp(text, word, strlen(word)) == 0;
}

static int is_in(int descriptor, const char *part) {
    char link[64], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    if (readlink(link, path, sizeof path - 1) < 0) return 0;
    return strstr(path, part) != NULL;
}

static int is_segment(int descriptor) { return is_in(descriptor, "/open/"); }

int fdatasync(int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (is_segment(descriptor)) {
        if (says("EIO")) { errno = EIO; return -1; }
        if (says("ENOSPC")) { errno = ENOSPC; return -1; }
        while (says("stall")) usleep(10000);
    }
    return real(descriptor);
}

int fsync(int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (is_in(descriptor, "/open") && says("directory")) { errno = EIO; return -1; }
    return real(descriptor);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    ssize_t (*real)(int, const struct iovec *, int) =
        (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    if (count > 0 && is_segment(descriptor) && says("short")) {
        struct iovec half = {parts[0].iov_base, (parts[0].iov_len + 1) / 2};
        return real(descriptor, &half, 1);
    }
    return real(descriptor, parts, count);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) =
        (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (size > 1 && is_segment(descriptor) && says("short")) size /= 2;
    return real(descriptor, data, size);
}
