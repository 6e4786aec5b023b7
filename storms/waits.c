/* How long each thread waited for the machine: for the interpreter's lock, or for a processor. And when the whole
 * machine stood still.
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
#include <signal.h>
#include <stdatomic.h>
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
static int is_watching;                        /* for `storms_watch` */
static _Atomic uint64_t next_due = UINT64_MAX; /* when the thread that watches must wake; UINT64_MAX: it does not sleep */
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
    is_watching = 0;
    atomic_store(&next_due, UINT64_MAX);
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

/* The host may stop a virtual machine and count no stolen time, for instance while no thread of it can run. A thread that
 * needs no lock of the interpreter sleeps all the time, and notes when it wakes far too late. */

enum { KEPT = 256, SLEEP = 5000000, STALL = 20000000 }; /* stalls; ns of a sleep; ns by which a wake is a stall */

static struct { uint64_t due, woke; } stalls[KEPT];
static atomic_uint stall_count;

static void *sleep_on(void *unused) {
    (void)unused;
    for (;;) {
        uint64_t due = now() + SLEEP;
        atomic_store(&next_due, due);
        nanosleep(&(struct timespec){.tv_nsec = SLEEP}, NULL);
        uint64_t woke = now();
        atomic_store(&next_due, UINT64_MAX);
        if (woke - due > STALL) {
            unsigned count = atomic_load(&stall_count);
            stalls[count % KEPT].due = due;
            stalls[count % KEPT].woke = woke;
            atomic_store(&stall_count, count + 1);
        }
    }
    return NULL;
}

/* Start the thread, unless it runs. A forked child has none. Returns 0, or an error number. */
int storms_watch(void) {
    if (is_watching) {
        return 0;
    }
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* the signals of the program are for its other threads */
    int error = pthread_create(&thread, NULL, sleep_on, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        pthread_detach(thread);
        is_watching = 1;
    }
    return error;
}

static double after(double moment, uint64_t due, uint64_t woke) {
    double from = (double)due / 1e9, to = (double)woke / 1e9;
    return to <= moment ? 0.0 : to - (from > moment ? from : moment);
}

/* Seconds for which the machine stood still after *moment*, in seconds of the monotonic clock. */
double storms_stalled(double moment) {
    uint64_t current = now(), due = atomic_load(&next_due);
    /* The thread may have to wake yet. */
    double seconds = due < current && current - due > STALL ? after(moment, due, current) : 0.0;
    unsigned count = atomic_load(&stall_count), first = count > KEPT ? count - KEPT : 0;
    while (count-- > first) {
        seconds += after(moment, stalls[count % KEPT].due, stalls[count % KEPT].woke);
    }
    return seconds;
}
