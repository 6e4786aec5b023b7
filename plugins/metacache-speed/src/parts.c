/* One window of requests on each of several plain sockets, and the replies to them.
 *
 * It does what `exchange_windows` (metacache/cluster/parallel.py) does in Python, and says how far it came with each part
 * that is not finished. The GIL is released while the thread waits. A signal ends the wait. Its Python handler runs, and
 * an exception of the handler propagates unchanged.
 */

#include "batch.h"
#include "system.h"
#include "window.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <string.h>

#define LONGEST 65536 /* bytes of the replies of one part; a part with more is not finished here */

/* The requests and replies of one node. The objects are owned. */
typedef struct {
    PyObject *indices; /* tuple: the caller may change its list while the GIL is released */
    PyObject *request; /* bytes */
    PyObject *first;   /* bytes: the marks */
    PyObject *last;
    PyObject *headers; /* lists of the replies that were read */
    PyObject *values;
    PyObject *data;      /* bytes that were received before, or NULL */
    Py_ssize_t position; /* behind the last reply that was read */
    Py_ssize_t sent;
    int error; /* errno, or 0 */
    int is_done;
} Part;

typedef struct {
    Py_ssize_t count;
    PyObject *exchanges; /* list, borrowed: the sockets */
    Part *parts;
    struct pollfd *waits; /* a descriptor below 0: there is nothing to wait for */
    char *buffer;
    Reading reading; /* what is the same for all parts */
    Header header;
    Sequence headers; /* the lists of all replies */
    Sequence values;
} Parts;

static void
free_parts(Parts *all)
{
    for (Py_ssize_t index = 0; all->parts != NULL && index < all->count; index++) {
        Part *part = &all->parts[index];
        Py_XDECREF(part->indices);
        Py_XDECREF(part->request);
        Py_XDECREF(part->first);
        Py_XDECREF(part->last);
        Py_XDECREF(part->headers);
        Py_XDECREF(part->values);
        Py_XDECREF(part->data);
    }
    Py_XDECREF(all->header.line);
    PyMem_Free(all->parts);
    PyMem_Free(all->waits);
    PyMem_Free(all->buffer);
}

/* Return the mark of one of the two *opaques*, as bytes. NULL, without an exception, if it is something else. */
static PyObject *
mark_in(PyObject *opaques, Py_ssize_t index)
{
    if (!PyTuple_CheckExact(opaques) || PyTuple_Size(opaques) != 2) {
        return NULL;
    }
    PyObject *forms = PyTuple_GetItem(opaques, index);
    if (!PyTuple_CheckExact(forms) || PyTuple_Size(forms) != 4) {
        return NULL;
    }
    PyObject *mark = PyTuple_GetItem(forms, 3);
    return PyBytes_CheckExact(mark) ? Py_NewRef(mark) : NULL;
}

static int
wrong_part(void)
{
    PyErr_SetString(PyExc_TypeError, "exchange_parts takes lists of exchanges, of indices, and of two opaques each");
    return -1;
}

/* Returns 1, 0 if the part cannot be sent as one window, -1 with an exception. */
static int
make_part(Part *part, Span span, PyObject *share, PyObject *opaques, Py_ssize_t most, Py_ssize_t limit)
{
    Sequence indices;
    part->first = mark_in(opaques, 0);
    part->last = mark_in(opaques, 1);
    if (part->first == NULL || part->last == NULL || !is_sequence(share, &indices)) {
        return wrong_part();
    }
    part->indices = indices.is_list ? PyList_AsTuple(share) : Py_NewRef(share);
    /* Now, and before the sizes are taken: making a list may run the garbage collector, and so Python code. */
    part->headers = PyList_New(0);
    part->values = PyList_New(0);
    if (part->indices == NULL || part->headers == NULL || part->values == NULL) {
        return -1;
    }
    is_sequence(part->indices, &indices);
    if (indices.size == 0 || indices.size > most || !is_sequence(span.heads.items, &span.heads) ||
        (span.has_bodies && !is_sequence(span.bodies.items, &span.bodies))) {
        return 0;
    }
    span.indices = &indices;
    span.stop = indices.size;
    span.first = part->first;
    span.last = part->last;
    part->request = join_span(&span, limit);
    return part->request == NULL ? -1 : part->request != Py_None;
}

/* Returns 1, 0 if a part cannot be sent as one window, -1 with an exception. */
static int
make_parts(Parts *all, PyObject *shares, PyObject *opaques, const Span *span, Py_ssize_t most, Py_ssize_t limit)
{
    all->parts = PyMem_Calloc((size_t)all->count, sizeof(Part));
    all->waits = PyMem_Calloc((size_t)all->count, sizeof(struct pollfd));
    all->buffer = PyMem_Malloc(LONGEST);
    if (all->parts == NULL || all->waits == NULL || all->buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t index = 0; index < all->count; index++) {
        PyObject *share = PyList_GetItem(shares, index), *pair = PyList_GetItem(opaques, index);
        int status = share == NULL || pair == NULL ? -1 : make_part(&all->parts[index], *span, share, pair, most, limit);
        if (status <= 0) {
            return status;
        }
    }
    return 1;
}

/* Return the descriptor of the socket of a part; -1, without an exception, if it was closed. */
static int
descriptor_at(const Parts *all, Py_ssize_t index)
{
    PyObject *exchange = PyList_GetItem(all->exchanges, index);
    if (exchange == NULL) {
        PyErr_Clear(); /* other code shortened the list */
        return -1;
    }
    return descriptor_of(exchange);
}

/* Take the descriptors of the parts that still wait. Returns 0 if a socket was closed.
 *
 * A signal handler may close a socket, for example because it forks, and another socket may get the number. So this
 * follows each place where Python code may run. */
static int
take_descriptors(Parts *all)
{
    for (Py_ssize_t index = 0; index < all->count; index++) {
        if (all->waits[index].fd >= 0) {
            int descriptor = descriptor_at(all, index);
            if (descriptor < 0) {
                return 0;
            }
            all->waits[index] = (struct pollfd){.fd = descriptor, .events = POLLIN};
        }
    }
    return 1;
}

/* Returns whether every request was sent as a whole. */
static int
send_all(Parts *all)
{
    int is_usual = 1;
    for (Py_ssize_t index = 0; index < all->count; index++) {
        Part *part = &all->parts[index];
        Py_ssize_t size = PyBytes_Size(part->request);
        const char *bytes = PyBytes_AsString(part->request);
        ssize_t sent = send(all->waits[index].fd, bytes, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT);
        part->sent = sent < 0 ? 0 : sent;
        part->error = sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : errno;
        is_usual &= sent == size;
    }
    return is_usual;
}

/* Fill the replies of a part into all replies. Returns 0 if that is impossible, -1 with an exception. */
static int
place_part(const Parts *all, const Part *part)
{
    Sequence indices, headers, values;
    is_sequence(part->indices, &indices);
    is_sequence(part->headers, &headers);
    is_sequence(part->values, &values);
    int status = place(&all->headers, &indices, &headers);
    return status == 1 ? place(&all->values, &indices, &values) : status;
}

/* Read the first *size* bytes of the buffer, which are all that a part has received. Returns whether the part needs no
 * more bytes here; -1 with an exception. */
static int
read_part(Parts *all, Part *part, Py_ssize_t size)
{
    Reading reading = all->reading;
    reading.data = all->buffer;
    reading.size = size;
    reading.count = PyTuple_Size(part->indices);
    reading.first = reading.count > 1 ? part->first : part->last;
    reading.last = part->last;
    reading.headers = part->headers;
    reading.values = part->values;
    part->position = read_replies(&reading, &all->header, part->position);
    if (part->position < 0) {
        return -1;
    }
    int is_all = PyList_Size(part->headers) == reading.count;
    if (is_all && part->position == size) {
        int status = place_part(all, part);
        part->is_done = status == 1;
        return status < 0 ? -1 : 1;
    }
    return is_all || !reading.is_short || size == LONGEST;
}

/* Receive once for a part. Returns whether it needs no more bytes here; -1 with an exception. */
static int
receive_part(Parts *all, Part *part, int descriptor)
{
    Py_ssize_t before = part->data == NULL ? 0 : PyBytes_Size(part->data);
    ssize_t received = recv(descriptor, all->buffer + before, (size_t)(LONGEST - before), MSG_DONTWAIT);
    if (received < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            return 0;
        }
        part->error = before == 0 ? errno : 0; /* the Python code reads the bytes before it finds the error */
        return 1;
    }
    if (before > 0) {
        memcpy(all->buffer, PyBytes_AsString(part->data), (size_t)before);
    }
    int is_over = received == 0 ? 1 : read_part(all, part, before + received);
    if (is_over >= 0 && !part->is_done && (received > 0 || before == 0)) {
        Py_XDECREF(part->data);
        part->data = PyBytes_FromStringAndSize(all->buffer, before + received);
        return part->data == NULL ? -1 : is_over;
    }
    return is_over;
}

/* Receive once from each socket that is ready. Returns how many parts are over; -1 with an exception. */
static Py_ssize_t
receive_ready(Parts *all)
{
    Py_ssize_t over = 0;
    for (Py_ssize_t index = 0; index < all->count; index++) {
        struct pollfd *wait = &all->waits[index];
        if (wait->fd < 0 || wait->revents == 0) {
            continue;
        }
        /* Again for each: reading the replies of the part before may have run Python code. */
        if (descriptor_at(all, index) != wait->fd) {
            continue;
        }
        int status = receive_part(all, &all->parts[index], wait->fd);
        if (status < 0) {
            return -1;
        }
        if (status > 0) {
            wait->fd = -1; /* poll ignores it */
            over++;
        }
    }
    return over;
}

/* Wait until *deadline*, and read the replies. Returns -1 with an exception. */
static int
receive_all(Parts *all, double deadline)
{
    for (Py_ssize_t left = all->count; left > 0 && take_descriptors(all);) {
        double milliseconds = ceil((deadline - monotonic_seconds()) * 1000.0);
        /* A comparison with NaN is false, so NaN does not wait. */
        int timeout = !(milliseconds > 0) ? 0 : milliseconds >= INT_MAX ? INT_MAX : (int)milliseconds;
        int found;
        Py_BEGIN_ALLOW_THREADS
        found = poll(all->waits, (nfds_t)all->count, timeout);
        Py_END_ALLOW_THREADS
        if (found < 0) {
            if (errno != EINTR) {
                return 0; /* the Python code finds the error */
            }
            return PyErr_CheckSignals() < 0 ? -1 : 0; /* the Python code goes on */
        }
        Py_ssize_t over = receive_ready(all);
        if (over < 0) {
            return -1;
        }
        left -= over;
        if (found == 0) {
            return 0;
        }
    }
    return 0;
}

/* Return the list of None or (sent, data, error), or NULL with an exception. */
static PyObject *
outcomes_of(const Parts *all)
{
    PyObject *outcomes = PyList_New(0);
    for (Py_ssize_t index = 0; outcomes != NULL && index < all->count; index++) {
        const Part *part = &all->parts[index];
        PyObject *data = part->data == NULL ? Py_None : part->data;
        PyObject *outcome = part->is_done ? Py_NewRef(Py_None) : Py_BuildValue("nOi", part->sent, data, part->error);
        if (outcome == NULL || PyList_Append(outcomes, outcome) < 0) {
            Py_CLEAR(outcomes);
        }
        Py_XDECREF(outcome);
    }
    return outcomes;
}

/* Returns NULL with an exception. */
static PyObject *
exchange_all(Parts *all, double deadline)
{
    /* A socket that is readable is closed, or has bytes that no request asked for. */
    if (!take_descriptors(all) || poll(all->waits, (nfds_t)all->count, 0) != 0) {
        Py_RETURN_NONE;
    }
    return send_all(all) && receive_all(all, deadline) < 0 ? NULL : outcomes_of(all);
}

/* exchange_parts(exchanges, shares, opaques, heads, bodies, most requests, largest window, deadline, limit, whole,
 * has_value, sizes, learn, headers, values) -> list of None or (sent, data, errno); None if nothing was sent */
PyObject *
exchange_parts(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    for (Py_ssize_t index = 0; index < 3; index++) {
        if (count != 15 || !PyList_CheckExact(arguments[index]) || PyList_Size(arguments[index]) == 0 ||
            PyList_Size(arguments[index]) != PyList_Size(arguments[0])) {
            wrong_part();
            return NULL;
        }
    }
    PyObject *heads = arguments[3], *bodies = arguments[4];
    Py_ssize_t most = PyLong_AsSsize_t(arguments[5]), largest = PyLong_AsSsize_t(arguments[6]);
    double deadline = PyFloat_AsDouble(arguments[7]);
    Span span = {.heads.items = heads, .bodies.items = bodies, .has_bodies = bodies != Py_None};
    Parts all = {.count = PyList_Size(arguments[0]), .exchanges = arguments[0], .header = NO_HEADER};
    all.reading = (Reading){
        .limit = PyLong_AsSsize_t(arguments[8]),
        .whole = arguments[9],
        .has_value = arguments[10] == Py_True,
        .sizes = arguments[11],
        .learn = arguments[12],
        .headers = arguments[13],
        .values = arguments[14],
    };
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!is_valid_reading(&all.reading) || !is_sequence(arguments[13], &all.headers) ||
        !is_sequence(arguments[14], &all.values)) {
        PyErr_SetString(PyExc_TypeError, "exchange_parts was called with an argument of a wrong type");
        return NULL;
    }
    int status = make_parts(&all, arguments[1], arguments[2], &span, most, largest);
    PyObject *outcomes = status == 1 ? exchange_all(&all, deadline) : status == 0 ? Py_NewRef(Py_None) : NULL;
    free_parts(&all);
    return outcomes;
}
