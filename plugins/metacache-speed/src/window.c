/* Reads the replies of a window, up to the first one that is not plain.
 *
 * The twin in Python is `Window._split` of metacache/protocol/windows.py. What a header line announces is known from its
 * tables, and `learn` (`value_header` there) fills them: this file does not parse header lines.
 */

#include "window.h"

#include <string.h>

#define NO_VALUE (-1) /* the line is a whole reply */
#define UNKNOWN (-2)  /* the parser must read this reply */

const Header NO_HEADER = {NULL, NULL, 0, UNKNOWN};

/* Return the size of the value that *line* announces. Sets an exception on failure and returns UNKNOWN then. */
static Py_ssize_t
announced(const Reading *reading, PyObject *line)
{
    int is_whole = PySet_Contains(reading->whole, line);
    if (is_whole != 0) {
        return is_whole < 0 ? UNKNOWN : NO_VALUE;
    }
    if (!reading->has_value) {
        return UNKNOWN;
    }
    PyObject *known = PyDict_GetItemWithError(reading->sizes, line); /* borrowed; used before other code can run */
    if (known == NULL && PyErr_Occurred()) {
        return UNKNOWN;
    }
    Py_ssize_t size = -1;
    if (known != NULL) {
        size = PyLong_AsSsize_t(known);
    }
    else {
        PyObject *learned = PyObject_CallFunctionObjArgs(reading->learn, line, NULL);
        if (learned == NULL) {
            return UNKNOWN;
        }
        if (PyTuple_CheckExact(learned) && PyTuple_Size(learned) > 0) {
            size = PyLong_AsSsize_t(PyTuple_GetItem(learned, 0));
        }
        Py_DECREF(learned);
    }
    return size < 0 ? UNKNOWN : size;
}

/* Make *header* that of the line. Returns -1 with an exception. */
static int
look_up(const Reading *reading, Header *header, const char *line, Py_ssize_t length)
{
    if (header->line != NULL && header->length == length && memcmp(header->bytes, line, (size_t)length) == 0) {
        return 0;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(line, length);
    if (bytes == NULL) {
        return -1;
    }
    PyObject *old = header->line;
    header->line = bytes;
    header->bytes = PyBytes_AsString(bytes);
    header->length = length;
    Py_XDECREF(old);
    header->size = announced(reading, bytes);
    return PyErr_Occurred() ? -1 : 0;
}

/* Remove *mark* from the end of the line; return -1 if it does not end with it. */
static Py_ssize_t
without_mark(const char *line, Py_ssize_t length, PyObject *mark)
{
    Py_ssize_t size = PyBytes_Size(mark);
    int is_marked = size <= length && memcmp(line + length - size, PyBytes_AsString(mark), (size_t)size) == 0;
    return is_marked && size > 0 ? length - size : -1;
}

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

/* Read one reply at *position*; return the position after it, *position* if it is not plain, -1 with an exception. */
static Py_ssize_t
read_reply(Reading *reading, Header *header, Py_ssize_t position, Py_ssize_t index)
{
    const char *data = reading->data, *line = data + position;
    Py_ssize_t size = reading->size;
    const char *end = memchr(line, '\n', (size_t)(size - position));
    if (end == NULL || end == line || end[-1] != '\r') {
        reading->is_short = end == NULL;
        return position;
    }
    Py_ssize_t length = end - 1 - line, next = end + 1 - data;
    if (index == 0) {
        length = without_mark(line, length, reading->first);
    }
    if (index == reading->count - 1 && reading->count > 1 && length >= 0) {
        length = without_mark(line, length, reading->last);
    }
    if (length < 0) {
        return position;
    }
    if (look_up(reading, header, line, length) < 0) {
        return -1;
    }
    if (header->size == UNKNOWN) {
        return position;
    }
    if (header->size == NO_VALUE) {
        Py_INCREF(Py_None);
        return append(reading->values, Py_None) < 0 || PyList_Append(reading->headers, header->line) < 0 ? -1 : next;
    }
    if (header->size > reading->limit) {
        return position;
    }
    if (size - next < 2 || header->size > size - next - 2) {
        reading->is_short = 1;
        return position;
    }
    if (memcmp(data + next + header->size, "\r\n", 2) != 0) {
        return position;
    }
    PyObject *value = PyBytes_FromStringAndSize(data + next, header->size);
    if (append(reading->values, value) < 0 || PyList_Append(reading->headers, header->line) < 0) {
        return -1;
    }
    return next + header->size + 2;
}

int
is_valid_reading(const Reading *reading)
{
    return PyFrozenSet_Check(reading->whole) && PyDict_Check(reading->sizes) && PyList_Check(reading->headers) &&
           PyList_Check(reading->values);
}

Py_ssize_t
read_replies(Reading *reading, Header *header, Py_ssize_t position)
{
    reading->is_short = position == reading->size;
    while (position < reading->size) {
        Py_ssize_t index = PyList_Size(reading->headers); /* again for each reply: `learn` runs Python code */
        if (index >= reading->count || PyList_Size(reading->values) != index) {
            break;
        }
        Py_ssize_t next = read_reply(reading, header, position, index);
        if (next <= position) {
            return next < 0 ? -1 : position;
        }
        position = next;
        reading->is_short = position == reading->size;
    }
    return position;
}

/* read_window(data, position, limit, count, first, last, whole, has_value, sizes, learn, headers, values) -> position */
PyObject *
read_window(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 12) {
        PyErr_SetString(PyExc_TypeError, "read_window takes 12 arguments");
        return NULL;
    }
    Reading reading = {
        .limit = PyLong_AsSsize_t(arguments[2]),
        .count = PyLong_AsSsize_t(arguments[3]),
        .first = arguments[4],
        .last = arguments[5],
        .whole = arguments[6],
        .has_value = arguments[7] == Py_True,
        .sizes = arguments[8],
        .learn = arguments[9],
        .headers = arguments[10],
        .values = arguments[11],
    };
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (PyBytes_Check(arguments[0]) && PyBytes_Check(reading.first) && PyBytes_Check(reading.last)) {
        reading.data = PyBytes_AsString(arguments[0]);
        reading.size = PyBytes_Size(arguments[0]);
    }
    if (reading.data == NULL || !is_valid_reading(&reading) || position < 0 || position > reading.size) {
        PyErr_SetString(PyExc_TypeError, "read_window was called with an argument of a wrong type or range");
        return NULL;
    }
    Header header = NO_HEADER;
    position = read_replies(&reading, &header, position);
    Py_XDECREF(header.line);
    return position < 0 ? NULL : PyLong_FromSsize_t(position);
}
