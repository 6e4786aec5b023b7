/* One window of requests on each of several plain sockets, and one read of the replies from each.
 *
 * It does what `ClusterExchange` (metacache/cluster/blocking_batch.py) does if nothing unusual happens, and says how far
 * it came. The Python code goes on from there. The GIL is released while the thread waits. A signal ends the wait. Its
 * Python handler runs, and an exception of the handler propagates unchanged.
 */

#include "speed.h"
#include "system.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>

/* The socket of one part; `descriptor` of `wait` is negative when there is nothing to wait for. */
typedef struct {
    PyObject *request; /* bytes, borrowed */
    Py_ssize_t sent;
    PyObject *data; /* bytes that were received, or NULL; owned */
    int error;      /* errno, or 0 */
} Part;

typedef struct {
    Py_ssize_t count;
    Part *parts;
    struct pollfd *waits;
    char *buffer;
} Parts;

static void
free_parts(Parts *all)
{
    for (Py_ssize_t index = 0; all->parts != NULL && index < all->count; index++) {
        Py_XDECREF(all->parts[index].data);
    }
    PyMem_Free(all->parts);
    PyMem_Free(all->waits);
    PyMem_Free(all->buffer);
}

/* Returns -1 with an exception; call `free_parts` in either case. */
static int
make_parts(Parts *all, PyObject *descriptors, PyObject *requests)
{
    all->count = PyList_Size(descriptors);
    all->parts = PyMem_Calloc((size_t)all->count, sizeof(Part));
    all->waits = PyMem_Calloc((size_t)all->count, sizeof(struct pollfd));
    all->buffer = PyMem_Malloc(RECEIVE);
    if (all->parts == NULL || all->waits == NULL || all->buffer == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t index = 0; index < all->count; index++) {
        long descriptor = PyLong_AsLong(PyList_GetItem(descriptors, index));
        PyObject *request = PyList_GetItem(requests, index);
        if (PyErr_Occurred() || request == NULL || !PyBytes_CheckExact(request) || descriptor > INT_MAX) {
            PyErr_SetString(PyExc_TypeError, "exchange_parts takes descriptors and bytes");
            return -1;
        }
        all->parts[index].request = request;
        all->waits[index] = (struct pollfd){.fd = (int)descriptor, .events = POLLIN};
    }
    return 0;
}

/* Returns whether a socket is closed or has bytes that no request asked for. */
static int
is_any_stale(Parts *all)
{
    for (Py_ssize_t index = 0; index < all->count; index++) {
        if (all->waits[index].fd < 0) {
            return 1;
        }
    }
    return poll(all->waits, (nfds_t)all->count, 0) != 0;
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

/* Receive once from each socket that is ready. Returns how many were; -1 with an exception. */
static Py_ssize_t
receive_ready(Parts *all)
{
    Py_ssize_t ready = 0;
    for (Py_ssize_t index = 0; index < all->count; index++) {
        struct pollfd *wait = &all->waits[index];
        if (wait->fd < 0 || wait->revents == 0) {
            continue;
        }
        ssize_t received = recv(wait->fd, all->buffer, RECEIVE, MSG_DONTWAIT);
        if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            continue;
        }
        wait->fd = -1; /* poll ignores it */
        ready++;
        if (received < 0) {
            all->parts[index].error = errno;
            continue;
        }
        all->parts[index].data = PyBytes_FromStringAndSize(all->buffer, received);
        if (all->parts[index].data == NULL) {
            return -1;
        }
    }
    return ready;
}

/* Wait until *deadline*, and receive once from each socket. Returns -1 with an exception. */
static int
receive_all(Parts *all, double deadline)
{
    for (Py_ssize_t left = all->count; left > 0;) {
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
            /* The handler may have closed a socket, for example by a fork, and another one may have the number. The
             * Python code knows the sockets. */
            return PyErr_CheckSignals() < 0 ? -1 : 0;
        }
        Py_ssize_t received = receive_ready(all);
        if (received < 0) {
            return -1;
        }
        left -= received;
        if (found == 0) {
            return 0;
        }
    }
    return 0;
}

/* Return the list of (sent, data, error), or NULL with an exception. */
static PyObject *
outcomes_of(const Parts *all)
{
    PyObject *outcomes = PyList_New(all->count);
    for (Py_ssize_t index = 0; outcomes != NULL && index < all->count; index++) {
        const Part *part = &all->parts[index];
        PyObject *outcome = Py_BuildValue("nOi", part->sent, part->data == NULL ? Py_None : part->data, part->error);
        if (outcome == NULL || PyList_SetItem(outcomes, index, outcome) < 0) {
            Py_CLEAR(outcomes);
        }
    }
    return outcomes;
}

/* exchange_parts(descriptors, requests, deadline) -> list of (sent, data, errno); None if nothing was sent */
PyObject *
exchange_parts(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || !PyList_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1]) ||
        PyList_Size(arguments[0]) != PyList_Size(arguments[1]) || PyList_Size(arguments[0]) == 0) {
        PyErr_SetString(PyExc_TypeError, "exchange_parts takes two lists of one size, and a deadline");
        return NULL;
    }
    double deadline = PyFloat_AsDouble(arguments[2]);
    if (deadline == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    /* A copy: it keeps the requests while the GIL is released. */
    PyObject *descriptors = arguments[0], *requests = PyList_GetSlice(arguments[1], 0, PyList_Size(arguments[1]));
    Parts all = {0, NULL, NULL, NULL};
    PyObject *outcomes = NULL;
    if (requests != NULL && make_parts(&all, descriptors, requests) == 0) {
        if (is_any_stale(&all)) {
            outcomes = Py_NewRef(Py_None);
        }
        else if (!send_all(&all) || receive_all(&all, deadline) == 0) {
            outcomes = outcomes_of(&all);
        }
    }
    free_parts(&all);
    Py_XDECREF(requests);
    return outcomes;
}
