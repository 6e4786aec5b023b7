/* The layout of a pending reply, for the files that read one: pending.c and link.c. */
#ifndef METACACHE_PENDING_H
#define METACACHE_PENDING_H

#include "speed.h"

/* Any object may be NULL; for `answer` and `waiter` that is the same as None. */
typedef struct {
    PyObject_HEAD
    PyObject *queue;
    PyObject *work;
    PyObject *plain;
    PyObject *read;
    PyObject *answer;
    PyObject *waiter; /* a Waiter or None */
    double deadline;
    double made_at;
    /* What `frame_requests` needs of the request; NULL until then if Python code queued it. */
    PyObject *command;
    PyObject *head; /* bytes */
    PyObject *body; /* bytes or None */
} PendingReply;

typedef struct {
    PyObject_HEAD
    PyObject *future;
    PyObject *pending;
} Waiter;

static inline int
is_none(PyObject *object)
{
    return object == NULL || object == Py_None;
}

/* The interned names of the attributes and methods that are looked up. */
typedef enum {
    ABANDON,
    BLOCKING,
    BODY,
    CALLBACKS,
    CANCELLED,
    COMMAND,
    FINISH,
    FUT_WAITER,
    HAS_VALUE,
    HEAD,
    IDLE,
    NEW_WAITER,
    NOTE_FAILURE,
    POPLEFT,
    REMOVE,
    RUN,
    SELF,
    VERB,
    WHOLE,
    NAMES /* their number */
} Name;

/* The state of the module. */
typedef struct {
    PyTypeObject *pending;
    PyTypeObject *waiter;
    PyObject *get_running_loop; /* of asyncio; NULL until it is needed */
    PyObject *names[NAMES];
} State;

#endif
