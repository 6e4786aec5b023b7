/* What a link of asyncio does with many requests in flight: frame those that wait, read the replies, give the answers.
 *
 * The twins in Python are the loops of `Link._write_each` and `Link._answer` (metacache/transports/aio/link.py), and
 * `ProtocolConnection._plain_answers` (metacache/protocol/connection.py). Each function stops at the first request or
 * reply that is not plain; the Python code goes on from there. Header lines are not parsed here: `learn`
 * (`value_header`) does that.
 */

#include "pending.h"

#include <string.h>

#define MAX_OPAQUE 16 /* bytes of an opaque with its space and CRLF, or more */
#define NO_SIZE (-1) /* a header line that announces no value */

/* --- requests out ------------------------------------------------------------------------------------------------- */

/* Return 1 if *pending* is not to be sent any more, 0 if it is, -1 with an exception. */
static int
is_given_up(State *state, PendingReply *pending)
{
    if (!is_none(pending->answer)) {
        return 1;
    }
    if (is_none(pending->waiter) || !Py_IS_TYPE(pending->waiter, state->waiter)) {
        return 0;
    }
    PyObject *future = ((Waiter *)pending->waiter)->future;
    PyObject *is_cancelled =
        future == NULL ? Py_NewRef(Py_False) : PyObject_CallMethodObjArgs(future, state->names[CANCELLED], NULL);
    Py_XDECREF(is_cancelled);
    return is_cancelled == NULL ? -1 : is_cancelled == Py_True;
}

/* The bytes of the requests that were taken. */
typedef struct {
    char *bytes;
    size_t size, room;
} Buffer;

static int
put(Buffer *buffer, PyObject *bytes)
{
    size_t more = (size_t)PyBytes_Size(bytes);
    /* The sum cannot overflow: `frame_requests` limits it. */
    if (more > buffer->room - buffer->size) {
        size_t room = 2 * (buffer->size + more);
        char *moved = PyMem_Realloc(buffer->bytes, room);
        if (moved == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        buffer->bytes = moved;
        buffer->room = room;
    }
    memcpy(buffer->bytes + buffer->size, PyBytes_AsString(bytes), more);
    buffer->size += more;
    return 0;
}

/* Return whether *object* is a tuple of bytes, as in `OPAQUES`. */
static int
is_opaque(PyObject *object)
{
    return PyTuple_CheckExact(object) && PyTuple_Size(object) == 4 && PyBytes_CheckExact(PyTuple_GetItem(object, 0)) &&
           PyBytes_CheckExact(PyTuple_GetItem(object, 3));
}

static PyObject *
next_opaque(PyObject *opaques)
{
    PyObject *opaque = PyIter_Next(opaques);
    if (opaque != NULL && is_opaque(opaque)) {
        return opaque;
    }
    Py_XDECREF(opaque);
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "an opaque is a tuple of four bytes objects");
    }
    return NULL;
}

/* Expect the reply to *pending*, put it in flight, and add its bytes to *buffer*. */
static int
frame(PendingReply *pending, PyObject *in_flight, PyObject *expected, PyObject *opaques, PyObject *crlf, Buffer *buffer)
{
    PyObject *opaque = next_opaque(opaques);
    PyObject *entry = opaque == NULL ? NULL : PyTuple_Pack(2, pending->command, opaque);
    int status = -1;
    if (entry != NULL && PyList_Append(in_flight, (PyObject *)pending) == 0 && PyList_Append(expected, entry) == 0 &&
        put(buffer, pending->head) == 0 && put(buffer, PyTuple_GetItem(opaque, 0)) == 0) {
        status = !is_none(pending->body) && (put(buffer, pending->body) < 0 || put(buffer, crlf) < 0) ? -1 : 0;
    }
    Py_XDECREF(entry);
    Py_XDECREF(opaque);
    return status;
}

/* Note what is to be sent for *pending*, which Python code queued. Returns -1 with an exception. */
static int
note_request(State *state, PendingReply *pending)
{
    PyObject *verb = PyObject_GetAttr(pending->plain, state->names[VERB]);
    if (verb == NULL) {
        return -1;
    }
    pending->command = PyObject_GetAttr(verb, state->names[COMMAND]);
    pending->head = PyObject_GetAttr(pending->plain, state->names[HEAD]);
    pending->body = PyObject_GetAttr(pending->plain, state->names[BODY]);
    Py_DECREF(verb);
    return PyErr_Occurred() ? -1 : 0;
}

/* Return whether *object* is a request with an opaque whose bytes fit into *room*; -1 with an exception. */
static int
fits(State *state, PyObject *object, Py_ssize_t room)
{
    PendingReply *pending = (PendingReply *)object;
    if (!Py_IS_TYPE(object, state->pending) || is_none(pending->plain)) {
        return 0;
    }
    if (pending->command == NULL && note_request(state, pending) < 0) {
        return -1;
    }
    int has_body = !is_none(pending->body);
    if (!PyBytes_CheckExact(pending->head) || (has_body && !PyBytes_CheckExact(pending->body))) {
        return 0;
    }
    return PyBytes_Size(pending->head) + MAX_OPAQUE + (has_body ? PyBytes_Size(pending->body) + 2 : 0) <= room;
}

/* frame_requests(waiting, in_flight, expected, opaques, room, largest, crlf) -> (bytes, number)
 *
 * Moves up to *room* plain requests from the beginning of *waiting* to *in_flight*, and stops before there are more
 * than *largest* bytes. Drops those that were given up. Returns the bytes, and the number of requests in them. */
PyObject *
frame_requests(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 7 || !PyList_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1]) ||
        !PyList_CheckExact(arguments[2]) || !PyIter_Check(arguments[3]) || !PyBytes_CheckExact(arguments[6])) {
        PyErr_SetString(PyExc_TypeError, "frame_requests takes three lists, an iterator, two numbers and bytes");
        return NULL;
    }
    PyObject *waiting = arguments[0];
    Py_ssize_t room = PyLong_AsSsize_t(arguments[4]), largest = PyLong_AsSsize_t(arguments[5]), taken = 0, number = 0;
    if (PyErr_Occurred()) {
        return NULL;
    }
    Buffer buffer = {NULL, 0, 0};
    int status = 0;
    while (status == 0 && taken < PyList_Size(waiting) && number < room) {
        PyObject *pending = PyList_GetItem(waiting, taken);
        int is_taken = fits(state, pending, largest - (Py_ssize_t)buffer.size);
        if (is_taken <= 0) {
            status = is_taken;
            break;
        }
        Py_INCREF(pending);
        taken++;
        int is_dropped = is_given_up(state, (PendingReply *)pending);
        if (is_dropped == 0) {
            number++;
            status = frame((PendingReply *)pending, arguments[1], arguments[2], arguments[3], arguments[6], &buffer);
        }
        status = is_dropped < 0 ? -1 : status;
        Py_DECREF(pending);
    }
    PyObject *result = NULL;
    if (status == 0 && PyList_SetSlice(waiting, 0, taken, NULL) == 0) {
        result = Py_BuildValue("(y#n)", buffer.bytes == NULL ? "" : buffer.bytes, (Py_ssize_t)buffer.size, number);
    }
    PyMem_Free(buffer.bytes);
    return result;
}

/* --- answers in --------------------------------------------------------------------------------------------------- */

/* give_answers(in_flight, answers) -> list
 *
 * Remove the first pending replies from *in_flight*, as many as there are *answers*, and return them. Each gets its
 * answer, except those that have one already. If a request is not plain, return [], with nothing changed. */
PyObject *
give_answers(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 2 || !PyList_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "give_answers takes two lists");
        return NULL;
    }
    PyObject *in_flight = arguments[0], *answers = arguments[1];
    Py_ssize_t size = PyList_Size(answers);
    if (size > PyList_Size(in_flight)) {
        return PyList_New(0);
    }
    for (Py_ssize_t index = 0; index < size; index++) {
        PyObject *pending = PyList_GetItem(in_flight, index);
        if (!Py_IS_TYPE(pending, state->pending) || is_none(((PendingReply *)pending)->plain)) {
            return PyList_New(0);
        }
    }
    PyObject *first = PyList_GetSlice(in_flight, 0, size);
    if (first == NULL || PyList_SetSlice(in_flight, 0, size, NULL) < 0) {
        Py_XDECREF(first);
        return NULL;
    }
    for (Py_ssize_t index = 0; index < size; index++) {
        PendingReply *pending = (PendingReply *)PyList_GetItem(first, index);
        if (is_none(pending->answer)) {
            PyObject *old = pending->answer;
            pending->answer = Py_NewRef(PyList_GetItem(answers, index));
            Py_XDECREF(old); /* NULL or None: no code runs */
        }
    }
    return first;
}

/* What the reply to a request can be. Requests in a row have the same command. */
typedef struct {
    PyObject *command; /* owned */
    PyObject *whole;   /* frozenset, owned: header lines that are replies without a value */
    int has_value;
} Allowed;

/* The header line that was read last: lines repeat. */
typedef struct {
    PyObject *line;   /* bytes, owned; NULL if there is none */
    PyObject *tokens; /* owned */
    Py_ssize_t size;  /* of its value */
} Header;

typedef struct {
    const char *data;
    Py_ssize_t size;
    PyObject *known; /* dict: header line -> (size, tokens) */
    PyObject *learn; /* callable: the same, and fills the dict */
    Allowed allowed;
    Header header;
} Reading;

static void
forget(Reading *reading)
{
    Py_CLEAR(reading->allowed.command);
    Py_CLEAR(reading->allowed.whole);
    Py_CLEAR(reading->header.line);
    Py_CLEAR(reading->header.tokens);
}

static int
allow(State *state, Allowed *allowed, PyObject *command)
{
    if (allowed->command == command) {
        return 0;
    }
    PyObject *whole = PyObject_GetAttr(command, state->names[WHOLE]);
    PyObject *has_value = whole == NULL ? NULL : PyObject_GetAttr(command, state->names[HAS_VALUE]);
    if (has_value == NULL || !PyFrozenSet_Check(whole)) {
        Py_XDECREF(whole);
        Py_XDECREF(has_value);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "the whole replies of a command are a frozenset");
        }
        return -1;
    }
    Py_XDECREF(allowed->whole);
    Py_XDECREF(allowed->command);
    allowed->whole = whole;
    allowed->has_value = has_value == Py_True;
    allowed->command = Py_NewRef(command);
    Py_DECREF(has_value);
    return 0;
}

/* Make *reading*'s header that of the line. `learn` may run Python code. */
static int
look_up(Reading *reading, const char *line, Py_ssize_t length)
{
    Header *header = &reading->header;
    if (header->line != NULL && PyBytes_Size(header->line) == length &&
        memcmp(PyBytes_AsString(header->line), line, (size_t)length) == 0) {
        return 0;
    }
    Py_CLEAR(header->line);
    Py_CLEAR(header->tokens);
    PyObject *bytes = PyBytes_FromStringAndSize(line, length);
    if (bytes == NULL) {
        return -1;
    }
    PyObject *parsed = Py_XNewRef(PyDict_GetItemWithError(reading->known, bytes));
    if (parsed == NULL && !PyErr_Occurred()) {
        parsed = PyObject_CallFunctionObjArgs(reading->learn, bytes, NULL);
    }
    int status = -1;
    if (parsed != NULL && PyTuple_CheckExact(parsed) && PyTuple_Size(parsed) == 2) {
        header->size = PyLong_AsSsize_t(PyTuple_GetItem(parsed, 0));
        if (!PyErr_Occurred()) {
            header->tokens = Py_NewRef(PyTuple_GetItem(parsed, 1));
            header->line = Py_NewRef(bytes);
            status = 0;
        }
    }
    else if (parsed != NULL) {
        PyErr_SetString(PyExc_TypeError, "a parsed header line is a size and tokens");
    }
    Py_XDECREF(parsed);
    Py_DECREF(bytes);
    return status;
}

/* Add the answer of *tokens* and *value*, which it takes, to *answers*. */
static int
add_answer(PyObject *answers, PyObject *tokens, PyObject *value)
{
    PyObject *answer = value == NULL ? NULL : PyTuple_Pack(2, tokens, value);
    int status = answer == NULL ? -1 : PyList_Append(answers, answer);
    Py_XDECREF(answer);
    Py_XDECREF(value);
    return status;
}

/* Read the reply at *position* whose opaque is *mark*; return the position after it, *position* if it is not plain, -1
 * with an exception. */
static Py_ssize_t
read_answer(Reading *reading, Py_ssize_t position, PyObject *mark, PyObject *answers)
{
    const char *line = reading->data + position;
    const char *end = memchr(line, '\n', (size_t)(reading->size - position));
    Py_ssize_t suffix = PyBytes_Size(mark);
    if (end == NULL || end == line || end[-1] != '\r' || end - 1 - line < suffix ||
        memcmp(end - 1 - suffix, PyBytes_AsString(mark), (size_t)suffix) != 0) {
        return position; /* the opaque is missing, flags follow it, or the line is incomplete */
    }
    Py_ssize_t next = end + 1 - reading->data;
    if (look_up(reading, line, end - 1 - suffix - line) < 0) {
        return -1;
    }
    Header *header = &reading->header;
    if (header->size <= NO_SIZE) {
        int is_whole = PySet_Contains(reading->allowed.whole, header->line);
        if (is_whole <= 0) {
            return is_whole < 0 ? -1 : position;
        }
        return add_answer(answers, header->tokens, Py_NewRef(Py_None)) < 0 ? -1 : next;
    }
    Py_ssize_t left = reading->size - next;
    if (!reading->allowed.has_value || left < 2 || header->size > left - 2 ||
        memcmp(reading->data + next + header->size, "\r\n", 2) != 0) {
        return position;
    }
    PyObject *value = PyBytes_FromStringAndSize(reading->data + next, header->size);
    return add_answer(answers, header->tokens, value) < 0 ? -1 : next + header->size + 2;
}

/* Read replies until one is not plain; return the position after them, -1 with an exception. */
static Py_ssize_t
read_all(State *state, Reading *reading, PyObject *expected, PyObject *answers)
{
    Py_ssize_t position = 0;
    for (Py_ssize_t index = 0; position < reading->size && index < PyList_Size(expected); index++) {
        PyObject *entry = PyList_GetItem(expected, index);
        if (!PyTuple_CheckExact(entry) || PyTuple_Size(entry) != 2) {
            break;
        }
        PyObject *opaque = PyTuple_GetItem(entry, 1);
        if (!is_opaque(opaque)) {
            break;
        }
        Py_INCREF(entry); /* `learn` runs Python code */
        Py_ssize_t next = allow(state, &reading->allowed, PyTuple_GetItem(entry, 0)) < 0
                              ? -1
                              : read_answer(reading, position, PyTuple_GetItem(opaque, 3), answers);
        Py_DECREF(entry);
        if (next <= position) {
            return next < 0 ? -1 : position;
        }
        position = next;
    }
    return position;
}

/* read_answers(data, expected, known_headers, learn) -> (answers, position)
 *
 * Read the plain replies at the beginning of *data* to the first requests of *expected*, and remove these. */
PyObject *
read_answers(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 4 || !PyBytes_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1]) ||
        !PyDict_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "read_answers takes bytes, a list, a dict and a function");
        return NULL;
    }
    Reading reading = {
        .data = PyBytes_AsString(arguments[0]),
        .size = PyBytes_Size(arguments[0]),
        .known = arguments[2],
        .learn = arguments[3],
    };
    PyObject *answers = PyList_New(0);
    Py_ssize_t position = answers == NULL ? -1 : read_all(state, &reading, arguments[1], answers);
    forget(&reading);
    int failed = position < 0 || PyList_SetSlice(arguments[1], 0, PyList_Size(answers), NULL) < 0;
    PyObject *result = failed ? NULL : Py_BuildValue("(On)", answers, position);
    Py_XDECREF(answers);
    return result;
}
