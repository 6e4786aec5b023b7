/* The parts of a batch that cost the most per key: its request lines, and the replies in the middle of a window.
 *
 * Each function handles plain keys and plain replies, and leaves all others to the caller's Python code.
 */

#include "speed.h"

#include <string.h>

/* Return bytes of the three parts. */
static PyObject *
joined(const char *first, Py_ssize_t a, const char *second, Py_ssize_t b, const char *third, Py_ssize_t c)
{
    PyObject *result = PyBytes_FromStringAndSize(NULL, a + b + c);
    if (result != NULL) {
        char *bytes = PyBytes_AsString(result);
        memcpy(bytes, first, (size_t)a);
        memcpy(bytes + a, second, (size_t)b);
        memcpy(bytes + a + b, third, (size_t)c);
    }
    return result;
}

/* Append *item*, whose reference this function takes. */
static int
append(PyObject *list, PyObject *item)
{
    if (item == NULL) {
        return -1;
    }
    int status = PyList_Append(list, item);
    Py_DECREF(item);
    return status;
}

/* The tail of a request line by the size of its body. */
typedef struct {
    PyObject *make; /* callable: size -> bytes */
    PyObject *known; /* dict, for sizes that alternate */
    Py_ssize_t size;
    PyObject *tail; /* of that size; borrowed from the dict */
} Tails;

static PyObject *
tail_of(Tails *tails, Py_ssize_t size)
{
    if (tails->tail != NULL && tails->size == size) {
        return tails->tail;
    }
    PyObject *number = PyLong_FromSsize_t(size);
    if (number == NULL) {
        return NULL;
    }
    PyObject *tail = PyDict_GetItemWithError(tails->known, number);
    if (tail == NULL && !PyErr_Occurred()) {
        tail = PyObject_CallFunctionObjArgs(tails->make, number, NULL);
        if (tail != NULL) {
            int status = PyBytes_CheckExact(tail) ? PyDict_SetItem(tails->known, number, tail) : -1;
            if (status < 0 && !PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "the tail of a request is bytes");
            }
            Py_DECREF(tail); /* the dict keeps it */
            tail = status < 0 ? NULL : tail;
        }
    }
    Py_DECREF(number);
    tails->size = size;
    tails->tail = tail;
    return tail;
}

/* Fill *raws* and *heads*. Returns 1, 0 if a key is not plain, -1 with an exception. */
static int
fill_heads(PyObject *keys, PyObject *prefix, PyObject *start, PyObject *end, PyObject *bodies, Tails *tails,
           PyObject *raws, PyObject *heads)
{
    const char *before = PyBytes_AsString(prefix), *first = PyBytes_AsString(start);
    Py_ssize_t prefix_size = PyBytes_Size(prefix), start_size = PyBytes_Size(start);
    for (Py_ssize_t index = 0; index < PyList_Size(keys); index++) {
        Py_ssize_t size;
        const char *bytes = plain_key(PyList_GetItem(keys, index), &size);
        if (bytes == NULL || prefix_size + size > MAX_KEY) {
            return 0;
        }
        PyObject *raw = joined(before, prefix_size, bytes, size, "", 0);
        if (append(raws, raw) < 0) {
            return -1;
        }
        PyObject *tail = end;
        if (bodies != NULL) {
            PyObject *body = PyList_GetItem(bodies, index); /* the list is the caller's own, and `make` does not see it */
            if (body == NULL || !PyBytes_CheckExact(body)) {
                return PyErr_Occurred() ? -1 : 0;
            }
            tail = tail_of(tails, PyBytes_Size(body));
            if (tail == NULL) {
                return -1;
            }
        }
        PyObject *head = joined(first, start_size, PyBytes_AsString(raw), prefix_size + size, PyBytes_AsString(tail),
                                PyBytes_Size(tail));
        if (append(heads, head) < 0) {
            return -1;
        }
    }
    return 1;
}

static PyObject *
heads_of(PyObject *keys, PyObject *prefix, PyObject *start, PyObject *end, PyObject *bodies, Tails *tails)
{
    PyObject *raws = PyList_New(0), *heads = PyList_New(0), *result = NULL;
    if (raws != NULL && heads != NULL) {
        int status = fill_heads(keys, prefix, start, end, bodies, tails, raws, heads);
        result = status < 0 ? NULL : status == 0 ? Py_NewRef(Py_None) : PyTuple_Pack(2, raws, heads);
    }
    Py_XDECREF(raws);
    Py_XDECREF(heads);
    return result;
}

PyObject *
get_heads(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *keys, *prefix, *start, *end;
    if (!PyArg_ParseTuple(arguments, "O!SSS:get_heads", &PyList_Type, &keys, &prefix, &start, &end)) {
        return NULL;
    }
    return heads_of(keys, prefix, start, end, NULL, NULL);
}

PyObject *
set_heads(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *keys, *prefix, *start, *bodies;
    Tails tails = {0};
    if (!PyArg_ParseTuple(arguments, "O!SSO!O:set_heads", &PyList_Type, &keys, &prefix, &start, &PyList_Type, &bodies,
                          &tails.make)) {
        return NULL;
    }
    tails.known = PyDict_New();
    if (tails.known == NULL) {
        return NULL;
    }
    PyObject *result = heads_of(keys, prefix, start, NULL, bodies, &tails);
    Py_DECREF(tails.known);
    return result;
}

/* What the middle of a window is read with, and what was read. */
typedef struct {
    PyObject *sizes;   /* dict: header line -> size of its value, -1 if it announces none */
    PyObject *learn;   /* callable: header line -> (size, tokens); fills the dict */
    PyObject *whole;   /* frozenset: header lines that are replies without a value */
    PyObject *header;  /* the last header line; owned */
    Py_ssize_t size;   /* of its value; -1: the reply has none; -2: it is no plain reply */
} Headers;

/* Find out what *line* announces. Returns -1 with an exception. */
static int
look_up(Headers *headers, const char *line, Py_ssize_t length)
{
    if (headers->header != NULL && PyBytes_Size(headers->header) == length &&
        memcmp(PyBytes_AsString(headers->header), line, (size_t)length) == 0) {
        return 0;
    }
    Py_XDECREF(headers->header);
    headers->header = PyBytes_FromStringAndSize(line, length);
    if (headers->header == NULL) {
        return -1;
    }
    int is_whole = PySet_Contains(headers->whole, headers->header);
    if (is_whole != 0) {
        headers->size = -1;
        return is_whole < 0 ? -1 : 0;
    }
    PyObject *size = PyDict_GetItemWithError(headers->sizes, headers->header);
    if (size != NULL) {
        headers->size = PyLong_AsSsize_t(size);
    }
    else if (PyErr_Occurred()) {
        return -1;
    }
    else {
        PyObject *learned = PyObject_CallFunctionObjArgs(headers->learn, headers->header, NULL);
        if (learned == NULL) {
            return -1;
        }
        headers->size = PyTuple_CheckExact(learned) ? PyLong_AsSsize_t(PyTuple_GetItem(learned, 0)) : -1;
        Py_DECREF(learned);
    }
    if (headers->size == -1 && PyErr_Occurred()) {
        return -1;
    }
    headers->size = headers->size < 0 ? -2 : headers->size;
    return 0;
}

/* Append the replies that are certain, at most *left*; return the position after them, -1 with an exception. */
static Py_ssize_t
read_replies(Headers *headers, const char *data, Py_ssize_t size, Py_ssize_t position, Py_ssize_t left,
             Py_ssize_t limit, PyObject *lines, PyObject *values)
{
    for (; left > 0 && position < size; left--) {
        const char *line = data + position;
        const char *end = memchr(line, '\n', (size_t)(size - position));
        if (end == NULL || end == line || end[-1] != '\r') {
            break;
        }
        if (look_up(headers, line, end - 1 - line) < 0) {
            return -1;
        }
        PyObject *value = Py_None;
        Py_ssize_t next = end + 1 - data;
        if (headers->size >= 0) {
            if (headers->size > limit || size - next < headers->size + 2 ||
                memcmp(data + next + headers->size, "\r\n", 2) != 0) {
                break;
            }
            value = PyBytes_FromStringAndSize(data + next, headers->size);
            next += headers->size + 2;
        }
        else if (headers->size == -2) {
            break;
        }
        else {
            Py_INCREF(value);
        }
        if (append(values, value) < 0) {
            return -1;
        }
        if (PyList_Append(lines, headers->header) < 0) {
            return -1;
        }
        position = next;
    }
    return position;
}

PyObject *
read_window(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *data, *lines, *values;
    Py_ssize_t position, left, limit;
    Headers headers = {0};
    if (!PyArg_ParseTuple(arguments, "SnnnO!O!OO!O!:read_window", &data, &position, &left, &limit, &PyFrozenSet_Type,
                          &headers.whole, &PyDict_Type, &headers.sizes, &headers.learn, &PyList_Type, &lines,
                          &PyList_Type, &values)) {
        return NULL;
    }
    if (position < 0 || position > PyBytes_Size(data)) {
        PyErr_SetString(PyExc_ValueError, "the position is outside of the data");
        return NULL;
    }
    position = read_replies(&headers, PyBytes_AsString(data), PyBytes_Size(data), position, left, limit, lines, values);
    Py_XDECREF(headers.header);
    return position < 0 ? NULL : PyLong_FromSsize_t(position);
}
