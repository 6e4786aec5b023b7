/* Pending replies of asyncio: what tasks await, how a request is queued, and how its task is resumed.
 *
 * The twins in Python are `PendingReply`, `Waiter` and `RequestQueue.wake` of metacache/transports/aio/pending.py, and
 * `AsyncConnection._enqueue`. A compiled pending reply has the attributes of its twin, and takes from it the methods for
 * all that is unusual: `abandon`, `note_failure`, and `finish`, which is the twin's own `__await__`.
 *
 * No Python code runs inside these functions where a comment does not say so. So no signal handler and no other task can
 * find a request half queued or half waiting.
 */

#include "pending.h"
#include "system.h"

#include <math.h>
#include <stddef.h>
#include <structmember.h>

#define AWAITED "another task awaits this request already"

/* The texts of `Name`. */
static const char *const names[NAMES] = {
    [ABANDON] = "abandon",
    [BLOCKING] = "_asyncio_future_blocking",
    [BODY] = "body",
    [CALLBACKS] = "_callbacks",
    [CANCELLED] = "cancelled",
    [COMMAND] = "command",
    [FINISH] = "finish",
    [FUT_WAITER] = "_fut_waiter",
    [HAS_VALUE] = "has_value",
    [HEAD] = "head",
    [IDLE] = "idle",
    [NEW_WAITER] = "new_waiter",
    [NOTE_FAILURE] = "note_failure",
    [POPLEFT] = "popleft",
    [REMOVE] = "remove_done_callback",
    [RUN] = "run",
    [SELF] = "__self__",
    [VERB] = "verb",
    [WHOLE] = "whole",
};

static State *
state_of(void *object)
{
    return PyType_GetModuleState(Py_TYPE(object));
}

/* --- waiters ------------------------------------------------------------------------------------------------------ */

static PyObject *
Waiter_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"future", NULL};
    PyObject *future;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:Waiter", names, &future)) {
        return NULL;
    }
    Waiter *self = (Waiter *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL) {
        self->future = Py_NewRef(future);
        self->pending = Py_NewRef(Py_None);
    }
    return (PyObject *)self;
}

static int
Waiter_traverse(PyObject *object, visitproc visit, void *arg)
{
    Waiter *self = (Waiter *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->future);
    Py_VISIT(self->pending);
    return 0;
}

static int
Waiter_clear(PyObject *object)
{
    Waiter *self = (Waiter *)object;
    Py_CLEAR(self->future);
    Py_CLEAR(self->pending);
    return 0;
}

static void
dealloc(PyObject *object, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static void
Waiter_dealloc(PyObject *object)
{
    dealloc(object, Waiter_clear);
}

static PyMemberDef waiter_members[] = {
    {"future", T_OBJECT_EX, offsetof(Waiter, future), 0, NULL},
    {"pending", T_OBJECT_EX, offsetof(Waiter, pending), 0, NULL},
    {NULL},
};

static PyType_Slot waiter_slots[] = {
    {Py_tp_new, Waiter_new},           {Py_tp_dealloc, Waiter_dealloc}, {Py_tp_members, waiter_members},
    {Py_tp_traverse, Waiter_traverse}, {Py_tp_clear, Waiter_clear},     {0},
};

static PyType_Spec waiter_spec = {
    .name = "metacache_speed.Waiter",
    .basicsize = sizeof(Waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = waiter_slots,
};

/* --- awaiting ----------------------------------------------------------------------------------------------------- */

/* Replace *place* by a new reference to *object*. */
static void
assign(PyObject **place, PyObject *object)
{
    PyObject *old = *place;
    *place = Py_NewRef(object);
    Py_XDECREF(old);
}

static PyObject *
PendingReply_await(PyObject *object)
{
    if (!is_none(((PendingReply *)object)->waiter)) {
        PyErr_SetString(PyExc_RuntimeError, AWAITED);
        return NULL;
    }
    return Py_NewRef(object);
}

/* Return an idle waiter, or a new one of the queue: that is a call of Python code. */
static PyObject *
take_waiter(State *state, PyObject *queue)
{
    PyObject *idle = PyObject_GetAttr(queue, state->names[IDLE]);
    if (idle == NULL) {
        return NULL;
    }
    PyObject *waiter = NULL;
    Py_ssize_t size = PyList_CheckExact(idle) ? PyList_Size(idle) : 0;
    if (size > 0) {
        waiter = Py_NewRef(PyList_GetItem(idle, size - 1));
        if (PyList_SetSlice(idle, size - 1, size, NULL) < 0) {
            Py_CLEAR(waiter);
        }
    }
    else {
        waiter = PyObject_CallMethodObjArgs(queue, state->names[NEW_WAITER], NULL);
    }
    Py_DECREF(idle);
    if (waiter != NULL && !Py_IS_TYPE(waiter, state->waiter)) {
        PyErr_SetString(PyExc_TypeError, "the waiters of a queue are of another type");
        Py_CLEAR(waiter);
    }
    return waiter;
}

/* Let the task wait on a waiter; return its future, on which the task registers. */
static PyObject *
wait_for_answer(PendingReply *self)
{
    State *state = state_of(self);
    Waiter *waiter = (Waiter *)take_waiter(state, self->queue);
    if (waiter == NULL) {
        return NULL;
    }
    PyObject *future = NULL;
    if (waiter->future != NULL && PyObject_SetAttr(waiter->future, state->names[BLOCKING], Py_True) == 0) {
        future = Py_NewRef(waiter->future);
        assign(&waiter->pending, (PyObject *)self);
        assign(&self->waiter, (PyObject *)waiter);
    }
    else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_AttributeError, "future");
    }
    Py_DECREF(waiter);
    return future;
}

/* Report the exception that `read` raised to the twin's method, and raise it again. */
static PyObject *
failed(PyObject *self)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL && error != NULL) {
        PyException_SetTraceback(error, trace);
    }
    PyObject *done = PyObject_CallMethodObjArgs(self, state_of(self)->names[NOTE_FAILURE], error, NULL);
    if (done == NULL) { /* of a signal handler */
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        return NULL;
    }
    Py_DECREF(done);
    PyErr_Restore(type, error, trace);
    return NULL;
}

/* Let the twin make the result, or raise the error, of an answer that is not a reply. */
static PyObject *
finish(PyObject *self)
{
    PyObject *generator = PyObject_CallMethodObjArgs(self, state_of(self)->names[FINISH], NULL), *result = NULL;
    if (generator == NULL) {
        return NULL;
    }
    if (PyIter_Send(generator, Py_None, &result) == PYGEN_NEXT) {
        Py_CLEAR(result);
        PyErr_SetString(PyExc_RuntimeError, "the answer of a pending reply was removed");
    }
    Py_DECREF(generator);
    return result;
}

/* Return whether a task waits on *waiter*, which is a Waiter or None. Code that made an iterator before that task began,
 * and uses it later, must not take its place: that task would wait for ever. */
static int
is_waited_on(State *state, PyObject *waiter)
{
    PyObject *future = Py_IS_TYPE(waiter, state->waiter) ? ((Waiter *)waiter)->future : NULL;
    PyObject *callbacks = future == NULL ? NULL : PyObject_GetAttr(future, state->names[CALLBACKS]);
    int is_waiting = callbacks != NULL && PyList_CheckExact(callbacks) && PyList_Size(callbacks) > 0;
    PyErr_Clear(); /* a future without callbacks is no future of a task */
    Py_XDECREF(callbacks);
    return is_waiting;
}

/* As `generator.send`. `read`, which may be code of the user, runs in it. */
static PySendResult
PendingReply_send(PyObject *object, PyObject *sent, PyObject **result)
{
    (void)sent;
    PendingReply *self = (PendingReply *)object;
    if (self->queue == NULL || self->read == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this request was not queued");
        *result = NULL;
        return PYGEN_ERROR;
    }
    if (is_none(self->answer)) {
        if (!is_none(self->waiter) && is_waited_on(state_of(self), self->waiter)) {
            PyErr_SetString(PyExc_RuntimeError, AWAITED);
            *result = NULL;
            return PYGEN_ERROR;
        }
        assign(&self->waiter, Py_None);
        *result = wait_for_answer(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_NEXT;
    }
    assign(&self->waiter, Py_None);
    Py_INCREF(object); /* the code that runs may end the last other reference */
    if (PyTuple_CheckExact(self->answer)) {
        PyObject *read = Py_NewRef(self->read), *answer = Py_NewRef(self->answer);
        *result = PyObject_CallFunctionObjArgs(read, answer, NULL);
        Py_DECREF(read);
        Py_DECREF(answer);
        if (*result == NULL) {
            *result = failed(object);
        }
    }
    else {
        *result = finish(object);
    }
    Py_DECREF(object);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* For an interpreter that traces, which does not use `am_send`. */
static PyObject *
PendingReply_next(PyObject *object)
{
    PyObject *result;
    if (PendingReply_send(object, Py_None, &result) != PYGEN_RETURN) {
        return result;
    }
    PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

/* throw(type or error, value=None, traceback=None): the task was cancelled, or its coroutine gets another exception. */
static PyObject *
PendingReply_throw(PyObject *object, PyObject *arguments)
{
    PendingReply *self = (PendingReply *)object;
    PyObject *type, *value = Py_None, *trace = Py_None;
    if (!PyArg_UnpackTuple(arguments, "throw", 1, 3, &type, &value, &trace)) {
        return NULL;
    }
    int is_waiting = !is_none(self->waiter);
    assign(&self->waiter, Py_None);
    /* After GeneratorExit, another task may await this. */
    if (is_waiting && !PyErr_GivenExceptionMatches(type, PyExc_GeneratorExit)) {
        PyObject *done = PyObject_CallMethodObjArgs(object, state_of(object)->names[ABANDON], NULL);
        if (done == NULL) {
            return NULL;
        }
        Py_DECREF(done);
    }
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject(PyExceptionInstance_Class(type), type);
    }
    else if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "throw takes an exception");
    }
    else {
        int has_trace = Py_IS_TYPE(trace, &PyTraceBack_Type);
        PyErr_Restore(Py_NewRef(type), value == Py_None ? NULL : Py_NewRef(value), has_trace ? Py_NewRef(trace) : NULL);
    }
    return NULL;
}

static PyObject *
PendingReply_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    assign(&((PendingReply *)object)->waiter, Py_None);
    Py_RETURN_NONE;
}

static int
PendingReply_traverse(PyObject *object, visitproc visit, void *arg)
{
    PendingReply *self = (PendingReply *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->queue);
    Py_VISIT(self->work);
    Py_VISIT(self->plain);
    Py_VISIT(self->read);
    Py_VISIT(self->answer);
    Py_VISIT(self->waiter);
    Py_VISIT(self->command);
    Py_VISIT(self->head);
    Py_VISIT(self->body);
    return 0;
}

static int
PendingReply_clear(PyObject *object)
{
    PendingReply *self = (PendingReply *)object;
    Py_CLEAR(self->queue);
    Py_CLEAR(self->work);
    Py_CLEAR(self->plain);
    Py_CLEAR(self->read);
    Py_CLEAR(self->answer);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->command);
    Py_CLEAR(self->head);
    Py_CLEAR(self->body);
    return 0;
}

static void
PendingReply_dealloc(PyObject *object)
{
    dealloc(object, PendingReply_clear);
}

#define MEMBER(name) {#name, T_OBJECT_EX, offsetof(PendingReply, name), 0, NULL}

static PyMemberDef pending_members[] = {
    MEMBER(queue),
    MEMBER(work),
    MEMBER(plain),
    MEMBER(read),
    MEMBER(answer),
    MEMBER(waiter),
    {"deadline", T_DOUBLE, offsetof(PendingReply, deadline), 0, NULL},
    {"made_at", T_DOUBLE, offsetof(PendingReply, made_at), 0, NULL},
    {NULL},
};

/* Without `send`, so that asyncio does not take this for a coroutine: a task of its own would skip `__await__`. */
static PyMethodDef pending_methods[] = {
    {"throw", PendingReply_throw, METH_VARARGS, NULL},
    {"close", PendingReply_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot pending_slots[] = {
    {Py_tp_dealloc, PendingReply_dealloc},
    {Py_tp_traverse, PendingReply_traverse},
    {Py_tp_clear, PendingReply_clear},
    {Py_tp_members, pending_members},
    {Py_tp_methods, pending_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, PendingReply_next},
    {Py_am_await, PendingReply_await},
    {Py_am_send, PendingReply_send},
    {0},
};

static PyType_Spec pending_spec = {
    .name = "metacache_speed.PendingReply",
    .basicsize = sizeof(PendingReply),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pending_slots,
};

/* --- queueing ----------------------------------------------------------------------------------------------------- */

static int
find_running_loop(State *state)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio != NULL) {
        state->get_running_loop = PyObject_GetAttrString(asyncio, "get_running_loop");
        Py_DECREF(asyncio);
    }
    return state->get_running_loop == NULL ? -1 : 0;
}

/* Return 1 if *loop* runs in this thread, 0 if not, -1 with an exception. */
static int
is_running(State *state, PyObject *loop)
{
    if (state->get_running_loop == NULL && find_running_loop(state) < 0) {
        return -1;
    }
    PyObject *running = PyObject_CallNoArgs(state->get_running_loop);
    if (running == NULL) { /* no loop runs; the caller's Python code says more about it */
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(running);
    return running == loop;
}

/* queue_request(op, command, head, body, read, queue, loop, waiting, deadline, timeout, timer_at, until)
 *
 * Return the pending reply of *op*, which is now in *waiting*; None, with nothing changed, if `AsyncConnection._enqueue`
 * must do more: *loop* is not the running one, the timer must be set, or the time is *until* or later. */
PyObject *
queue_request(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 12 || !PyBytes_CheckExact(arguments[2]) || !PyList_CheckExact(arguments[7])) {
        PyErr_SetString(PyExc_TypeError, "queue_request takes 12 arguments: see metacache/acceleration.py");
        return NULL;
    }
    PyObject *waiting = arguments[7];
    double timeout = PyFloat_AsDouble(arguments[9]), timer_at = PyFloat_AsDouble(arguments[10]);
    double until = PyFloat_AsDouble(arguments[11]), now = monotonic_seconds(), silent_at = now + timeout;
    double deadline = arguments[8] == Py_None ? silent_at : PyFloat_AsDouble(arguments[8]);
    int runs = PyErr_Occurred() ? -1 : is_running(state, arguments[6]);
    if (runs < 0) {
        return NULL;
    }
    double earliest = deadline < silent_at ? deadline : silent_at;
    if (!runs || !(now <= timer_at && timer_at <= earliest) || !(now < until)) {
        Py_RETURN_NONE;
    }
    PendingReply *self = (PendingReply *)PyType_GenericAlloc(state->pending, 0);
    if (self == NULL) {
        return NULL;
    }
    self->work = Py_NewRef(arguments[0]);
    self->plain = Py_NewRef(arguments[0]);
    self->command = Py_NewRef(arguments[1]);
    self->head = Py_NewRef(arguments[2]);
    self->body = Py_NewRef(arguments[3]);
    self->read = Py_NewRef(arguments[4]);
    self->queue = Py_NewRef(arguments[5]);
    self->answer = Py_NewRef(Py_None);
    self->waiter = Py_NewRef(Py_None);
    self->deadline = deadline;
    self->made_at = now;
    if (PyList_Append(waiting, (PyObject *)self) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* --- waking ------------------------------------------------------------------------------------------------------- */

/* Resume the task that waits on *future*, which has a callback: the method of the task that resumes it. That runs Python
 * code. */
static int
resume(State *state, PyObject *future, PyObject *callback, PyObject *done)
{
    if (!PyTuple_CheckExact(callback) || PyTuple_Size(callback) != 2) {
        PyErr_SetString(PyExc_TypeError, "a callback of a future is a function and a context");
        return -1;
    }
    PyObject *wakeup = PyTuple_GetItem(callback, 0), *context = PyTuple_GetItem(callback, 1);
    PyObject *task = PyObject_GetAttr(wakeup, state->names[SELF]);
    PyObject *awaited = task == NULL ? NULL : PyObject_GetAttr(task, state->names[FUT_WAITER]);
    Py_XDECREF(task);
    if (awaited == NULL) {
        return -1;
    }
    Py_DECREF(awaited);
    if (awaited == future) {
        PyObject *result = PyObject_CallMethodObjArgs(context, state->names[RUN], wakeup, done, NULL);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    PyObject *removed = PyObject_CallMethodObjArgs(future, state->names[REMOVE], wakeup, NULL);
    Py_XDECREF(removed);
    return removed == NULL ? -1 : 0;
}

static int
wake_task(State *state, PendingReply *pending, PyObject *idle, PyObject *done)
{
    if (is_none(pending->waiter) || !Py_IS_TYPE(pending->waiter, state->waiter)) {
        return 0;
    }
    Waiter *waiter = (Waiter *)Py_NewRef(pending->waiter);
    PyObject *future = Py_XNewRef(waiter->future);
    PyObject *callbacks = future == NULL ? NULL : PyObject_GetAttr(future, state->names[CALLBACKS]);
    int status = future == NULL || callbacks != NULL ? 0 : -1;
    /* Without a callback, its task was cancelled. */
    if (callbacks != NULL && PyList_CheckExact(callbacks) && PyList_Size(callbacks) > 0) {
        PyObject *first = Py_NewRef(PyList_GetItem(callbacks, 0));
        status = resume(state, future, first, done);
        Py_DECREF(first);
        if (status == 0) {
            assign(&waiter->pending, Py_None);
            status = PyList_Append(idle, (PyObject *)waiter);
        }
    }
    Py_XDECREF(callbacks);
    Py_XDECREF(future);
    Py_DECREF(waiter);
    return status;
}

/* wake_tasks(answered, idle, done): the loop of `RequestQueue.wake`. Raises what ends the loop there. */
PyObject *
wake_tasks(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 3 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "wake_tasks takes a deque, a list and a future that is done");
        return NULL;
    }
    PyObject *answered = arguments[0];
    Py_ssize_t left;
    while ((left = PyObject_Size(answered)) > 0) {
        PyObject *pending = PyObject_CallMethodObjArgs(answered, state->names[POPLEFT], NULL);
        if (pending == NULL) {
            return NULL;
        }
        int status = 0;
        if (Py_IS_TYPE(pending, state->pending)) {
            status = wake_task(state, (PendingReply *)pending, arguments[1], arguments[2]);
        }
        Py_DECREF(pending);
        if (status < 0) {
            return NULL;
        }
    }
    if (left < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the types ---------------------------------------------------------------------------------------------------- */

static PyTypeObject *
make_type(PyObject *module, PyType_Spec *spec)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
}

int
add_pending(PyObject *module)
{
    State *state = PyModule_GetState(module);
    for (int index = 0; index < NAMES; index++) {
        state->names[index] = PyUnicode_InternFromString(names[index]);
        if (state->names[index] == NULL) {
            return -1;
        }
    }
    state->pending = make_type(module, &pending_spec);
    state->waiter = make_type(module, &waiter_spec);
    if (state->pending == NULL || state->waiter == NULL) {
        return -1;
    }
    return PyModule_AddType(module, state->pending) < 0 ? -1 : PyModule_AddType(module, state->waiter);
}

int
traverse_state(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->pending);
    Py_VISIT(state->waiter);
    Py_VISIT(state->get_running_loop);
    return 0;
}

int
clear_state(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->pending);
    Py_CLEAR(state->waiter);
    Py_CLEAR(state->get_running_loop);
    for (int index = 0; index < NAMES; index++) {
        Py_CLEAR(state->names[index]);
    }
    return 0;
}
