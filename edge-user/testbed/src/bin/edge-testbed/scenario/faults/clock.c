/* Stands between a program and the wall clock: adds the seconds that a file says. What the kernel
 * counts by itself (CLOCK_MONOTONIC) is left alone, as it is when somebody sets a machine's clock.
 * `cargo xtask scenario faults` loads it under `edged`; nothing else does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("SEALEDGE_CLOCK_AHEAD");
    if (result != 0 || clock != CLOCK_REALTIME || path == NULL)
        return result;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return result;
    char text[32] = {0};
    if (read(file, text, sizeof text - 1) > 0)
        time->tv_sec += atol(text);
    close(file);
    return result;
}
