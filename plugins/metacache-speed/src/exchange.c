/* One request and its reply on a plain socket: the shortest path of a blocking connection.
 *
 * `Exchange.run` sends a request, waits for the reply and returns it, if one read returns the whole reply and the reply
 * is of a plain form. Otherwise it returns None, and the attributes `sent` and `data` say how far it came; the Python
 * code of `Lending.run` (metacache/transports/blocking/lending.py) goes on from there. The twin of `plain_reply` is
 * `whole_reply` of metacache/protocol/replies.py. This file decides nothing about an unusual reply.
 *
 * The GIL is released while the thread is in the kernel. A signal that interrupts a system call runs its Python handler.
 * An exception of the handler propagates unchanged.
 *
 * Most replies come soon. For them the socket is blocking, with a short receive timeout, because one `recv` that waits
 * costs less than `poll` and `recv` (1.2 of 20 microseconds of a get). `poll` waits for all others. After a `run` that
 * received something, the socket may be blocking, whatever timeout Python code has set before. So Python code calls
 * `unblock`, or sets another timeout, before it sends or receives itself (`finish` and `_set_timeout` of
 * metacache/transports/blocking/stream.py).
 */

#include "speed.h"
#include "system.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

/* Seconds that one `recv` waits at most, and the time that must be left for it: a kernel rounds a timeout up. */
#define SOON 0.05
#define LEFT_FOR_SOON 0.1

typedef struct {
    PyObject_HEAD
    int descriptor; /* -1 when the socket was closed */
    int is_running;
    int has_timeout; /* the socket has the receive timeout */
    int is_blocking; /* `run` has made the socket blocking; Python code may have changed that since */
    Py_ssize_t limit;        /* the largest value in bytes */
    PyObject *known_headers; /* dict: header line without opaque -> (size, tokens) */
    PyObject *hd_reply;      /* the reply to a store that was done: ([b"HD"], None) */
    PyObject *data;          /* bytes that were received and not read, or NULL */
    Py_ssize_t sent;         /* bytes that the kernel took */
} Exchange;

/* Buffers of RECEIVE bytes that no exchange uses now. With them, memory follows the exchanges that run, not the open
 * connections. They are not on the stack, because that of a thread may be smaller. The GIL protects them: without
 * Py_mod_multiple_interpreters, all interpreters that load this module share one. */
#define SPARES 4
static char *spare_buffers[SPARES];
static int spares;

static char *
take_buffer(void)
{
    return spares > 0 ? spare_buffers[--spares] : PyMem_Malloc(RECEIVE);
}

static void
put_back_buffer(char *buffer)
{
    if (spares < SPARES) {
        spare_buffers[spares++] = buffer;
    } else {
        PyMem_Free(buffer);
    }
}

/* How the system calls of one exchange ended. */
typedef enum { DONE, UNFINISHED, INTERRUPTED, FAILED } Ending;

typedef struct {
    int descriptor;
    int is_blocking;
    int has_polled;
    struct iovec parts[4];
    int count;
    Py_ssize_t size;
    Py_ssize_t sent;
    char *buffer;
    Py_ssize_t most; /* bytes to receive */
    Py_ssize_t received;
    double deadline;
    int error;
} Calls;

static Ending
ending_of(Calls *calls)
{
    calls->error = errno;
    return errno == EINTR ? INTERRUPTED : errno == EAGAIN || errno == EWOULDBLOCK ? UNFINISHED : FAILED;
}

/* Send what is unsent, wait, and read once. Touches no Python object, so it runs without the GIL. */
static Ending
do_calls(Calls *calls)
{
    if (calls->sent == 0) {
        struct msghdr message = {.msg_iov = calls->parts};
        message.msg_iovlen = calls->count;
        ssize_t sent = sendmsg(calls->descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            return ending_of(calls);
        }
        calls->sent = sent;
        if (sent < calls->size) {
            return UNFINISHED;
        }
    }
    if (calls->is_blocking && calls->deadline - monotonic_seconds() > LEFT_FOR_SOON) {
        calls->received = recv(calls->descriptor, calls->buffer, (size_t)calls->most, 0);
        if (calls->received >= 0) {
            return DONE;
        }
        Ending ending = ending_of(calls);
        if (ending != UNFINISHED) {
            return ending;
        }
    }
    calls->has_polled = 1;
    struct pollfd wait = {.fd = calls->descriptor, .events = POLLIN};
    double milliseconds = ceil((calls->deadline - monotonic_seconds()) * 1000.0);
    /* A comparison with NaN is false, so NaN does not wait. */
    int ready = poll(&wait, 1, !(milliseconds > 0) ? 0 : milliseconds >= INT_MAX ? INT_MAX : (int)milliseconds);
    if (ready <= 0) {
        return ready == 0 ? UNFINISHED : ending_of(calls);
    }
    ssize_t received = recv(calls->descriptor, calls->buffer, (size_t)calls->most, MSG_DONTWAIT);
    if (received < 0) {
        return ending_of(calls);
    }
    calls->received = received;
    return DONE;
}

/* Make the socket blocking, or non-blocking as Python code expects it. A failure changes nothing: `poll` waits then. */
static void
set_blocking(Exchange *self, int is_blocking)
{
    int is_non_blocking = !is_blocking;
    if (self->descriptor >= 0 && ioctl(self->descriptor, FIONBIO, &is_non_blocking) == 0) {
        self->is_blocking = is_blocking;
    }
}

/* Return the reply of the line *header* alone; Py_None if it is not a whole reply; NULL with an exception. */
static PyObject *
reply_without_value(Exchange *self, PyObject *header, PyObject *whole)
{
    int is_whole = PySet_Contains(whole, header);
    if (is_whole <= 0) {
        return is_whole < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (PyBytes_Size(header) == 2 && memcmp(PyBytes_AsString(header), "HD", 2) == 0) {
        return Py_NewRef(self->hd_reply);
    }
    PyObject *tokens = PyList_New(1);
    if (tokens == NULL) {
        return NULL;
    }
    PyList_SetItem(tokens, 0, Py_NewRef(header)); /* takes the reference, and cannot fail here */
    PyObject *reply = PyTuple_Pack(2, tokens, Py_None);
    Py_DECREF(tokens);
    return reply;
}

/* Return the reply that is all of *data*; Py_None if it is not plain; NULL with an exception. */
static PyObject *
plain_reply(Exchange *self, const char *data, Py_ssize_t size, PyObject *suffix, PyObject *whole, int has_value)
{
    Py_ssize_t mark = PyBytes_Size(suffix); /* " O7\r\n" */
    const char *end = memchr(data, '\n', (size_t)size);
    if (end == NULL || end + 1 - data < mark ||
        memcmp(end + 1 - mark, PyBytes_AsString(suffix), (size_t)mark) != 0) {
        Py_RETURN_NONE;
    }
    Py_ssize_t rest = size - (end + 1 - data);
    PyObject *header = PyBytes_FromStringAndSize(data, end + 1 - mark - data);
    if (header == NULL) {
        return NULL;
    }
    if (rest == 0) {
        PyObject *reply = reply_without_value(self, header, whole);
        Py_DECREF(header);
        return reply;
    }
    PyObject *known = PyDict_GetItemWithError(self->known_headers, header); /* borrowed */
    Py_DECREF(header);
    if (known == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    if (!PyTuple_CheckExact(known) || PyTuple_Size(known) != 2) {
        Py_RETURN_NONE;
    }
    Py_ssize_t length = PyLong_AsSsize_t(PyTuple_GetItem(known, 0));
    if (length == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!has_value || length < 0 || length > self->limit || rest < 2 || rest - 2 != length ||
        memcmp(data + size - 2, "\r\n", 2) != 0) {
        Py_RETURN_NONE;
    }
    PyObject *tokens = Py_NewRef(PyTuple_GetItem(known, 1)); /* owned: another thread may clear the table */
    PyObject *value = PyBytes_FromStringAndSize(end + 1, length);
    PyObject *reply = value == NULL ? NULL : PyTuple_Pack(2, tokens, value);
    Py_XDECREF(value);
    Py_DECREF(tokens);
    return reply;
}

/* Return the reply that was received; Py_None if it is not plain, and then keep the bytes; NULL with an exception. */
static PyObject *
reply_in(Exchange *self, Calls *calls, PyObject *suffix, PyObject *whole, int has_value)
{
    /* If the recv was full, bytes may be left behind the reply: the Python code looks for them. */
    PyObject *reply = calls->received < calls->most
                          ? plain_reply(self, calls->buffer, calls->received, suffix, whole, has_value)
                          : Py_NewRef(Py_None);
    if (reply == Py_None) {
        self->data = PyBytes_FromStringAndSize(calls->buffer, calls->received);
        if (self->data == NULL) {
            Py_CLEAR(reply);
        }
    }
    return reply;
}

/* Run the system calls to their end. Returns FAILED with an exception. */
static Ending
call_until_done(Exchange *self, Calls *calls)
{
    for (;;) {
        /* Again after each signal: its handler may have closed the socket, and another one may have the number. */
        calls->descriptor = self->descriptor;
        if (calls->descriptor < 0) {
            calls->error = EBADF;
            break;
        }
        calls->is_blocking = self->is_blocking;
        PyThreadState *state = PyEval_SaveThread();
        Ending ending = do_calls(calls);
        PyEval_RestoreThread(state);
        self->sent = calls->sent;
        if (ending == DONE && calls->has_polled && self->has_timeout) {
            set_blocking(self, 1);
        }
        if (ending != DONE && self->is_blocking) {
            set_blocking(self, 0);
        }
        if (ending == DONE || ending == UNFINISHED) {
            return ending;
        }
        if (ending == FAILED) {
            break;
        }
        if (PyErr_CheckSignals() != 0) {
            return FAILED;
        }
    }
    errno = calls->error;
    PyErr_SetFromErrno(PyExc_OSError);
    return FAILED;
}

/* run(head, body, suffix, whole, has_value, most, deadline) -> reply or None */
static PyObject *
Exchange_run(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Exchange *self = (Exchange *)object;
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "run takes 7 arguments");
        return NULL;
    }
    if (self->is_running) {
        PyErr_SetString(PyExc_RuntimeError, "this exchange is running already");
        return NULL;
    }
    Py_CLEAR(self->data);
    self->sent = 0;
    PyObject *head = arguments[0], *body = arguments[1], *suffix = arguments[2], *whole = arguments[3];
    if (!PyBytes_Check(head) || !(body == Py_None || PyBytes_Check(body)) || !PyBytes_Check(suffix) ||
        !PyFrozenSet_Check(whole)) {
        Py_RETURN_NONE; /* nothing was sent: the Python code does all of it */
    }
    Calls calls = {.most = PyLong_AsSsize_t(arguments[5]), .deadline = PyFloat_AsDouble(arguments[6])};
    if ((calls.most == -1 || calls.deadline == -1.0) && PyErr_Occurred()) {
        return NULL;
    }
    if (calls.most <= 0 || calls.most > RECEIVE) {
        PyErr_SetString(PyExc_ValueError, "run receives at most 65536 bytes");
        return NULL;
    }
    /* The caller keeps the arguments, so the bytes stay while the GIL is released. */
    calls.parts[0] = (struct iovec){PyBytes_AsString(head), (size_t)PyBytes_Size(head)};
    calls.parts[1] = (struct iovec){PyBytes_AsString(suffix), (size_t)PyBytes_Size(suffix)};
    calls.count = 2;
    if (body != Py_None) {
        calls.parts[2] = (struct iovec){PyBytes_AsString(body), (size_t)PyBytes_Size(body)};
        calls.parts[3] = (struct iovec){"\r\n", 2};
        calls.count = 4;
    }
    for (int index = 0; index < calls.count; index++) {
        calls.size += (Py_ssize_t)calls.parts[index].iov_len;
    }
    calls.buffer = take_buffer();
    if (calls.buffer == NULL) {
        return PyErr_NoMemory();
    }
    self->is_running = 1;
    Ending ending = call_until_done(self, &calls);
    self->is_running = 0;
    PyObject *reply = NULL;
    if (ending == DONE) {
        reply = reply_in(self, &calls, suffix, whole, arguments[4] == Py_True);
    } else if (ending == UNFINISHED) {
        reply = Py_NewRef(Py_None);
    }
    put_back_buffer(calls.buffer);
    return reply;
}

/* unblock() -> None: make the socket non-blocking, before Python code uses it. */
static PyObject *
Exchange_unblock(PyObject *object, PyObject *unused)
{
    (void)unused;
    Exchange *self = (Exchange *)object;
    if (self->is_blocking) {
        set_blocking(self, 0);
    }
    Py_RETURN_NONE;
}

/* close() -> None: use the descriptor no more. The socket itself is Python's. */
static PyObject *
Exchange_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    ((Exchange *)object)->descriptor = -1;
    Py_RETURN_NONE;
}

static PyObject *
Exchange_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (keywords != NULL) { /* parsing them would make each dial slower */
        PyErr_SetString(PyExc_TypeError, "Exchange takes no keyword arguments");
        return NULL;
    }
    int descriptor;
    Py_ssize_t limit;
    PyObject *known_headers, *hd_reply;
    if (!PyArg_ParseTuple(arguments, "inO!O!:Exchange", &descriptor, &limit, &PyDict_Type, &known_headers,
                          &PyTuple_Type, &hd_reply)) {
        return NULL;
    }
    Exchange *self = (Exchange *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->descriptor = descriptor;
    struct timeval soon = {.tv_usec = (suseconds_t)(SOON * 1e6)};
    self->has_timeout = MAY_BLOCK && setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon) == 0;
    self->limit = limit;
    self->known_headers = Py_NewRef(known_headers);
    self->hd_reply = Py_NewRef(hd_reply);
    return (PyObject *)self;
}

/* An Exchange is part of no cycle that ends: its dict and its reply belong to modules. So it needs no traverse. */
static void
Exchange_dealloc(PyObject *object)
{
    Exchange *self = (Exchange *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_CLEAR(self->known_headers);
    Py_CLEAR(self->hd_reply);
    Py_CLEAR(self->data);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

int
descriptor_of(PyObject *object)
{
    destructor dealloc = (destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc);
    return dealloc == Exchange_dealloc ? ((Exchange *)object)->descriptor : -1;
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))Exchange_run, METH_FASTCALL, NULL},
    {"unblock", Exchange_unblock, METH_NOARGS, NULL},
    {"close", Exchange_close, METH_NOARGS, NULL},
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
