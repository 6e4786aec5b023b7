/* What the files that call the system share: the clock, the size of a read, and what a system may lack. */
#ifndef METACACHE_SPEED_SYSTEM_H
#define METACACHE_SPEED_SYSTEM_H

#include <sys/socket.h>
#include <time.h>

#define RECEIVE 65536 /* bytes of one read, as in Python */

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS; Python ignores SIGPIPE */
#endif

/* Where a socket may be blocking: a send with MSG_DONTWAIT must not wait. On macOS it does, unless the socket is
 * non-blocking. */
#ifdef __linux__
#define MAY_BLOCK 1
#else
#define MAY_BLOCK 0
#endif

/* The clock of time.monotonic(), because deadlines come from there. On macOS it stops while the machine sleeps, and
 * CLOCK_MONOTONIC does not. */
#ifdef __APPLE__
#define MONOTONIC_CLOCK CLOCK_UPTIME_RAW
#else
#define MONOTONIC_CLOCK CLOCK_MONOTONIC
#endif

static inline double
monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(MONOTONIC_CLOCK, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
