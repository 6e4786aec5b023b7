/* How long each thread waited for the machine: for the interpreter's lock, or for a processor.
 *
 * `python -m storms` loads this before the C library (LD_PRELOAD). CPython waits for its lock with
 * pthread_cond_timedwait, for the next owner with pthread_cond_wait, and for the mutex of both with pthread_mutex_lock.
 * On Linux it uses them for little else: the locks of Python programs are semaphores. The kernel counts the time in which
 * a thread could run and had no processor.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct waits {
    uint64_t lock;            /* ns in waits for the interpreter's lock, by the clock on the wall */
    uint64_t queued_in_lock;  /* ns of them in which the kernel says that the thread had no processor */
    int descriptor;           /* of /proc/thread-self/schedstat; 0: the thread has not asked for its waits */
};

static __thread struct waits own;
static pthread_key_t at_exit;
static int (*cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*cond_wait)(pthread_cond_t *, pthread_mutex_t *);
static int (*mutex_lock)(pthread_mutex_t *);

static void close_descriptor(void *descriptor) { close((int)(intptr_t)descriptor); }

/* In a child the inherited descriptor is still that of the thread of the parent. */
static void reset_in_child(void) {
    if (own.descriptor > 0) {
        close(own.descriptor);
    }
    own = (struct waits){0};
}

__attribute__((constructor)) static void start(void) {
    cond_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    cond_wait = dlsym(RTLD_NEXT, "pthread_cond_wait");
    mutex_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    pthread_key_create(&at_exit, close_descriptor);
    pthread_atfork(NULL, NULL, reset_in_child);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* proc(5), /proc/[pid]/schedstat: ns on a processor, ns waiting for one, number of turns. */
static uint64_t queued(void) {
    char text[96];
    ssize_t size = pread(own.descriptor, text, sizeof text - 1, 0);
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    char *second;
    strtoull(text, &second, 10);
    return strtoull(second, NULL, 10);
}

static void add(uint64_t began, uint64_t queued_before) {
    own.lock += now() - began;
    own.queued_in_lock += queued() - queued_before;
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    if (own.descriptor == 0) {
        return cond_timedwait(cond, mutex, until);
    }
    uint64_t began = now(), before = queued();
    int result = cond_timedwait(cond, mutex, until);
    add(began, before);
    return result;
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex) {
    if (own.descriptor == 0) {
        return cond_wait(cond, mutex);
    }
    uint64_t began = now(), before = queued();
    int result = cond_wait(cond, mutex);
    add(began, before);
    return result;
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (mutex_lock == NULL) {  /* `start` has not run yet */
        mutex_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    }
    if (own.descriptor == 0) {
        return mutex_lock(mutex);
    }
    int result = pthread_mutex_trylock(mutex);  /* nearly always free */
    if (result != EBUSY) {
        return result;
    }
    uint64_t began = now(), before = queued();
    result = mutex_lock(mutex);
    add(began, before);
    return result;
}

/* Seconds that the calling thread has waited since some time before its first call; no time counts twice. */
double storms_waited(void) {
    if (own.descriptor == 0) {
        own.descriptor = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        pthread_setspecific(at_exit, (void *)(intptr_t)own.descriptor);
    }
    return (double)(own.lock + queued() - own.queued_in_lock) / 1e9;
}
