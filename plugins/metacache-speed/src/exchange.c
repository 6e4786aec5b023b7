/* One request and its reply on a plain socket: the shortest path of a blocking connection.
 *
 * `Exchange.run` sends a request, waits for the reply and returns it, if one read returns the whole reply and the reply
 * is of a plain form. Otherwise it returns None, and the attributes `sent`, `data` and `is_late` say how far it came;
 * the caller's Python code goes on from there. This file decides nothing about a reply that is unusual.
 *
 * The GIL is released while the thread is in the kernel. A signal that interrupts the wait runs its Python handler; an
 * exception of the handler propagates unchanged.
 */

#include "speed.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define RECEIVE 65536 /* bytes of one read, as in Python */

typedef struct {
    PyObject_HEAD
    int descriptor;
    Py_ssize_t limit;        /* the largest value in bytes */
    PyObject *known_headers; /* dict: header line without opaque -> (size, tokens) */
    PyObject *data;          /* bytes that were received and not read, or NULL */
    Py_ssize_t sent;         /* bytes that the kernel took */
} Exchange;

static double
monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* How the system calls of one exchange ended. */
typedef enum { DONE, UNFINISHED, INTERRUPTED, FAILED } Ending;

typedef struct {
    int descriptor;
    struct iovec *parts;
    int count;
    Py_ssize_t size;
    Py_ssize_t sent;
    char *buffer;
    Py_ssize_t received;
    double deadline;
    int error;
} Calls;

/* Send what is unsent, wait, and read once. Touches no Python object, so it runs without the GIL. */
static Ending
do_calls(Calls *calls)
{
    if (calls->sent == 0) {
        struct msghdr message = {.msg_iov = calls->parts, .msg_iovlen = (size_t)calls->count};
        ssize_t sent = sendmsg(calls->descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            calls->error = errno;
            return errno == EINTR ? INTERRUPTED : errno == EAGAIN || errno == EWOULDBLOCK ? UNFINISHED : FAILED;
        }
        calls->sent = sent;
        if (sent < calls->size) {
            return UNFINISHED;
        }
    }
    double left = calls->deadline - monotonic_seconds();
    struct pollfd wait = {.fd = calls->descriptor, .events = POLLIN};
    double milliseconds = ceil(left * 1000.0);
    int ready = poll(&wait, 1, milliseconds <= 0 ? 0 : milliseconds >= INT_MAX ? INT_MAX : (int)milliseconds);
    if (ready < 0) {
        calls->error = errno;
        return errno == EINTR ? INTERRUPTED : FAILED;
    }
    if (ready == 0) {
        return UNFINISHED;
    }
    ssize_t received = recv(calls->descriptor, calls->buffer, RECEIVE, MSG_DONTWAIT);
    if (received < 0) {
        calls->error = errno;
        return errno == EINTR ? INTERRUPTED : errno == EAGAIN || errno == EWOULDBLOCK ? UNFINISHED : FAILED;
    }
    calls->received = received;
    return DONE;
}

/* Return the reply that is all of the received bytes; Py_None if they are of another form; NULL with an exception. */
static PyObject *
plain_reply(Exchange *self, const char *data, Py_ssize_t size, PyObject *opaque, PyObject *whole, int has_value)
{
    PyObject *suffix = PyTuple_GetItem(opaque, 0); /* " O7\r\n" */
    const char *end = memchr(data, '\n', (size_t)size);
    Py_ssize_t tail = PyBytes_Size(suffix);
    if (end == NULL || end - data + 1 < tail || memcmp(end + 1 - tail, PyBytes_AsString(suffix), (size_t)tail) != 0) {
        Py_RETURN_NONE;
    }
    PyObject *header = PyBytes_FromStringAndSize(data, end + 1 - tail - data);
    if (header == NULL) {
        return NULL;
    }
    Py_ssize_t rest = size - (end + 1 - data);
    PyObject *reply = NULL;
    if (rest == 0) {
        int is_whole = PySet_Contains(whole, header);
        if (is_whole == 1) {
            PyObject *tokens = PyList_New(1);
            if (tokens != NULL) {
                PyList_SetItem(tokens, 0, Py_NewRef(header)); /* steals, and cannot fail here */
                reply = PyTuple_Pack(2, tokens, Py_None);
                Py_DECREF(tokens);
            }
        }
        else if (is_whole == 0) {
            reply = Py_NewRef(Py_None);
        }
        Py_DECREF(header);
        return reply;
    }
    PyObject *known = PyDict_GetItemWithError(self->known_headers, header); /* borrowed */
    Py_DECREF(header);
    if (known == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    Py_ssize_t length = PyLong_AsSsize_t(PyTuple_GetItem(known, 0));
    if (length == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!has_value || length < 0 || length > self->limit || rest != length + 2 || memcmp(data + size - 2, "\r\n", 2) != 0) {
        Py_RETURN_NONE;
    }
    PyObject *tokens = Py_NewRef(PyTuple_GetItem(known, 1)); /* owned: another thread may clear the table */
    PyObject *value = PyBytes_FromStringAndSize(end + 1, length);
    if (value != NULL) {
        reply = PyTuple_Pack(2, tokens, value);
        Py_DECREF(value);
    }
    Py_DECREF(tokens);
    return reply;
}

/* run(head, body, opaque, whole, has_value, deadline) -> reply or None */
static PyObject *
Exchange_run(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Exchange *self = (Exchange *)object;
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "run takes 6 arguments");
        return NULL;
    }
    PyObject *head = arguments[0], *body = arguments[1], *opaque = arguments[2], *whole = arguments[3];
    double deadline = PyFloat_AsDouble(arguments[5]);
    if (!PyBytes_Check(head) || !(body == Py_None || PyBytes_Check(body)) || !PyTuple_Check(opaque) ||
        PyTuple_Size(opaque) != 4 || !PyFrozenSet_Check(whole) || (deadline == -1.0 && PyErr_Occurred())) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "run takes bytes, bytes or None, an opaque, a frozenset, a bool, a float");
        }
        return NULL;
    }
    int has_value = arguments[4] == Py_True;
    PyObject *suffix = PyTuple_GetItem(opaque, 0);
    if (!PyBytes_Check(suffix)) {
        PyErr_SetString(PyExc_TypeError, "an opaque is a tuple of bytes");
        return NULL;
    }
    struct iovec parts[4] = {
        {PyBytes_AsString(head), (size_t)PyBytes_Size(head)},
        {PyBytes_AsString(suffix), (size_t)PyBytes_Size(suffix)},
    };
    int pieces = 2;
    if (body != Py_None) {
        parts[2] = (struct iovec){PyBytes_AsString(body), (size_t)PyBytes_Size(body)};
        parts[3] = (struct iovec){"\r\n", 2};
        pieces = 4;
    }
    char buffer[RECEIVE];
    Calls calls = {
        .descriptor = self->descriptor, .parts = parts, .count = pieces, .buffer = buffer, .deadline = deadline};
    for (int index = 0; index < pieces; index++) {
        calls.size += (Py_ssize_t)parts[index].iov_len;
    }
    Py_CLEAR(self->data);
    self->sent = 0;
    Ending ending;
    do {
        PyThreadState *state = PyEval_SaveThread();
        ending = do_calls(&calls);
        PyEval_RestoreThread(state);
        self->sent = calls.sent;
        if (ending == INTERRUPTED && PyErr_CheckSignals() != 0) {
            return NULL;
        }
    } while (ending == INTERRUPTED);
    if (ending == FAILED) {
        errno = calls.error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (ending == UNFINISHED) {
        Py_RETURN_NONE;
    }
    PyObject *reply = plain_reply(self, buffer, calls.received, opaque, whole, has_value);
    if (reply == Py_None) {
        self->data = PyBytes_FromStringAndSize(buffer, calls.received);
        if (self->data == NULL) {
            Py_DECREF(reply);
            return NULL;
        }
    }
    return reply;
}

static PyObject *
Exchange_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"descriptor", "limit", "known_headers", NULL};
    int descriptor;
    Py_ssize_t limit;
    PyObject *known_headers;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "inO!:Exchange", names, &descriptor, &limit, &PyDict_Type, &known_headers)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Exchange *self = (Exchange *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->descriptor = descriptor;
    self->limit = limit;
    self->known_headers = Py_NewRef(known_headers);
    return (PyObject *)self;
}

/* No cycle can pass through an Exchange but by the table of headers, which a module keeps for ever. */
static void
Exchange_dealloc(PyObject *object)
{
    Exchange *self = (Exchange *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_CLEAR(self->known_headers);
    Py_CLEAR(self->data);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))Exchange_run, METH_FASTCALL, NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"data", T_OBJECT, offsetof(Exchange, data), READONLY, NULL},
    {"sent", T_PYSSIZET, offsetof(Exchange, sent), READONLY, NULL},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Exchange_new},
    {Py_tp_dealloc, Exchange_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0},
};

static PyType_Spec spec = {
    .name = "metacache_speed.Exchange",
    .basicsize = sizeof(Exchange),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

PyObject *
make_exchange_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
