/* The lists of a batch: joins requests to a window, takes the part of a node, and reads the values that were found.
 *
 * The twins in Python are named at each function. They take every sequence; these functions take lists and tuples.
 */

#include "batch.h"

#include <string.h>

int
is_sequence(PyObject *object, Sequence *sequence)
{
    sequence->items = object;
    sequence->is_list = PyList_CheckExact(object);
    if (!sequence->is_list && !PyTuple_CheckExact(object)) {
        return 0;
    }
    sequence->size = sequence->is_list ? PyList_Size(object) : PyTuple_Size(object);
    return 1;
}

PyObject *
item(const Sequence *sequence, Py_ssize_t index)
{
    return sequence->is_list ? PyList_GetItem(sequence->items, index) : PyTuple_GetItem(sequence->items, index);
}

/* Return the index at *at*; -1, without an exception, if it is not one of *size* items. */
static Py_ssize_t
index_at(const Sequence *indices, Py_ssize_t at, Py_ssize_t size)
{
    PyObject *number = item(indices, at);
    Py_ssize_t index = number != NULL && PyLong_CheckExact(number) ? PyLong_AsSsize_t(number) : -1;
    if (index < 0) {
        PyErr_Clear(); /* it is too large */
        return -1;
    }
    return index < size ? index : -1;
}

/* --- the bytes of a window: `_joined` of metacache/protocol/connection.py ------------------------------------------ */

static PyObject *
mark_of(const Span *span, Py_ssize_t index)
{
    return index == span->stop - 1 ? span->last : index == span->start ? span->first : NULL;
}

/* Return the index of the request at *at*; -1, without an exception, if it is not there. */
static Py_ssize_t
request_at(const Span *span, Py_ssize_t at)
{
    Py_ssize_t index = span->indices == NULL ? at : index_at(span->indices, at, span->heads.size);
    return span->has_bodies && index >= span->bodies.size ? -1 : index;
}

/* Return the size of the window; -1, without an exception, if an item is not bytes or not there. */
static Py_ssize_t
size_of(const Span *span)
{
    Py_ssize_t size = 0;
    for (Py_ssize_t at = span->start; at < span->stop; at++) {
        Py_ssize_t index = request_at(span, at);
        if (index < 0) {
            return -1;
        }
        PyObject *head = item(&span->heads, index), *mark = mark_of(span, at);
        PyObject *body = span->has_bodies ? item(&span->bodies, index) : NULL;
        if (!PyBytes_CheckExact(head) || (body != NULL && !PyBytes_CheckExact(body))) {
            return -1;
        }
        Py_ssize_t own = PyBytes_Size(head) + 2;
        own += mark == NULL ? 0 : PyBytes_Size(mark);
        own += body == NULL ? 0 : PyBytes_Size(body) + 2;
        if (own > PY_SSIZE_T_MAX - size) {
            return -1;
        }
        size += own;
    }
    return size;
}

static char *
append_bytes(char *to, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_Size(bytes);
    memcpy(to, PyBytes_AsString(bytes), (size_t)size);
    return to + size;
}

static char *
append_end(char *to)
{
    memcpy(to, "\r\n", 2);
    return to + 2;
}

static void
write_window(const Span *span, char *to)
{
    for (Py_ssize_t at = span->start; at < span->stop; at++) {
        Py_ssize_t index = request_at(span, at);
        PyObject *mark = mark_of(span, at);
        to = append_bytes(to, item(&span->heads, index));
        to = append_end(mark == NULL ? to : append_bytes(to, mark));
        if (span->has_bodies) {
            to = append_end(append_bytes(to, item(&span->bodies, index)));
        }
    }
}

PyObject *
join_span(const Span *span, Py_ssize_t limit)
{
    Py_ssize_t size = size_of(span);
    if (size < 0 || size > limit) {
        Py_RETURN_NONE;
    }
    PyObject *window = PyBytes_FromStringAndSize(NULL, size);
    if (window != NULL) {
        write_window(span, PyBytes_AsString(window));
    }
    return window;
}

/* join_window(heads, bodies, start, stop, first, last) -> bytes; None if the arguments are not lists or tuples of bytes */
PyObject *
join_window(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "join_window takes 6 arguments");
        return NULL;
    }
    Span span = {
        .has_bodies = arguments[1] != Py_None,
        .start = PyLong_AsSsize_t(arguments[2]),
        .stop = PyLong_AsSsize_t(arguments[3]),
        .first = arguments[4],
        .last = arguments[5],
    };
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!is_sequence(arguments[0], &span.heads) || (span.has_bodies && !is_sequence(arguments[1], &span.bodies)) ||
        !PyBytes_CheckExact(span.first) || !PyBytes_CheckExact(span.last) || span.start < 0 ||
        span.stop <= span.start || span.stop > span.heads.size || (span.has_bodies && span.stop > span.bodies.size)) {
        Py_RETURN_NONE;
    }
    return join_span(&span, PY_SSIZE_T_MAX);
}

/* --- the size of a window: `_total` of metacache/transports/batch_windows.py -------------------------------------- */

/* total_size(items, start, stop) -> the sum of the sizes; -1 if *items* is not a list or tuple of bytes */
PyObject *
total_size(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Sequence items;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "total_size takes items, start and stop");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), stop = PyLong_AsSsize_t(arguments[2]), total = 0;
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!is_sequence(arguments[0], &items) || start < 0 || stop > items.size) {
        return PyLong_FromLong(-1);
    }
    for (Py_ssize_t index = start; index < stop; index++) {
        PyObject *bytes = item(&items, index);
        Py_ssize_t size = PyBytes_CheckExact(bytes) ? PyBytes_Size(bytes) : -1;
        if (size < 0 || size > PY_SSIZE_T_MAX - total) {
            return PyLong_FromLong(-1);
        }
        total += size;
    }
    return PyLong_FromSsize_t(total);
}

/* --- parts of a batch: `take` and `fill_part` of metacache/cluster/parts.py ---------------------------------------- */

/* take_items(items, indices) -> list of the items at the indices; None if one of them is not there, or it is not a list */
PyObject *
take_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Sequence from, indices;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "take_items takes items and indices");
        return NULL;
    }
    if (!is_sequence(arguments[0], &from) || !is_sequence(arguments[1], &indices)) {
        Py_RETURN_NONE;
    }
    PyObject *taken = PyList_New(indices.size);
    for (Py_ssize_t at = 0; taken != NULL && at < indices.size; at++) {
        Py_ssize_t index = index_at(&indices, at, from.size);
        if (index < 0) {
            Py_DECREF(taken);
            Py_RETURN_NONE;
        }
        PyList_SetItem(taken, at, Py_NewRef(item(&from, index))); /* takes the reference, and cannot fail here */
    }
    return taken;
}

int
place(const Sequence *whole, const Sequence *indices, const Sequence *parts)
{
    if (!whole->is_list || parts->size != indices->size || whole->items == indices->items) {
        return 0;
    }
    for (Py_ssize_t at = 0; at < indices->size; at++) {
        if (index_at(indices, at, whole->size) < 0) {
            return 0;
        }
    }
    for (Py_ssize_t at = 0; at < indices->size; at++) {
        /* The replaced items are bytes or None. Others may run Python code when they are freed, so check again. */
        PyObject *part = item(parts, at);
        Py_ssize_t index = part == NULL ? -1 : index_at(indices, at, whole->size);
        if (index < 0 || PyList_SetItem(whole->items, index, Py_NewRef(part)) < 0) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    return 1;
}

/* place_items(items, indices, parts) -> whether each of *parts* was put into the list *items* at its index. False: nothing
 * was changed. */
PyObject *
place_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Sequence whole, indices, parts;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "place_items takes items, indices and parts");
        return NULL;
    }
    if (!is_sequence(arguments[0], &whole) || !is_sequence(arguments[1], &indices) ||
        !is_sequence(arguments[2], &parts)) {
        Py_RETURN_FALSE;
    }
    int status = place(&whole, &indices, &parts);
    return status < 0 ? NULL : PyBool_FromLong(status);
}

/* --- results: `Reader.values` of metacache/operations/readers.py ---------------------------------------------------- */

/* Returns 1, 0 if a header line is not known, -1 with an exception. */
static int
add_found(PyObject *results, const Sequence *keys, const Sequence *headers, const Sequence *values, PyObject *known)
{
    PyObject *last = NULL; /* lines repeat */
    for (Py_ssize_t index = 0; index < keys->size; index++) {
        PyObject *value = item(values, index), *header = item(headers, index);
        if (value == Py_None) {
            continue;
        }
        if (header != last) {
            int is_known = PyBytes_CheckExact(header) ? PySet_Contains(known, header) : 0;
            if (is_known <= 0) {
                return is_known;
            }
            last = header;
        }
        if (!PyBytes_CheckExact(value) || PyDict_SetItem(results, item(keys, index), value) < 0) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    return 1;
}

static int
are_keys(const Sequence *keys)
{
    for (Py_ssize_t index = 0; index < keys->size; index++) {
        PyObject *key = item(keys, index);
        if (!PyUnicode_CheckExact(key) && !PyBytes_CheckExact(key)) {
            return 0; /* its hash may run Python code */
        }
    }
    return 1;
}

/* found_values(keys, headers, values, known) -> dict of the values that were found, by key; None if the header line of
 * one of them is not in the set *known* */
PyObject *
found_values(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Sequence keys, headers, values;
    if (count != 4 || !PyAnySet_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "found_values takes keys, headers, values and a set of headers");
        return NULL;
    }
    if (!is_sequence(arguments[0], &keys) || !is_sequence(arguments[1], &headers) ||
        !is_sequence(arguments[2], &values) || headers.size != keys.size || values.size != keys.size ||
        !are_keys(&keys)) {
        Py_RETURN_NONE;
    }
    PyObject *results = PyDict_New();
    int status = results == NULL ? -1 : add_found(results, &keys, &headers, &values, arguments[3]);
    if (status == 1) {
        return results;
    }
    Py_XDECREF(results);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* --- counting ------------------------------------------------------------------------------------------------------ */

/* count_lines(lines, line) -> how many of the list of bytes are equal to *line*, as `list.count`; -1 if something is
 * not bytes. Lines repeat, and are then one object. */
PyObject *
count_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Sequence lines;
    if (count != 2 || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "count_lines takes lines and a line");
        return NULL;
    }
    if (!is_sequence(arguments[0], &lines)) {
        return PyLong_FromLong(-1);
    }
    const char *bytes = PyBytes_AsString(arguments[1]);
    Py_ssize_t size = PyBytes_Size(arguments[1]), equal = 0;
    PyObject *last = NULL;
    int is_equal = 0;
    for (Py_ssize_t index = 0; index < lines.size; index++) {
        PyObject *line = item(&lines, index);
        if (line != last) {
            if (!PyBytes_CheckExact(line)) {
                return PyLong_FromLong(-1);
            }
            is_equal = PyBytes_Size(line) == size && memcmp(PyBytes_AsString(line), bytes, (size_t)size) == 0;
            last = line;
        }
        equal += is_equal;
    }
    return PyLong_FromSsize_t(equal);
}
