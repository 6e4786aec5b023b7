/* Encodes the keys and the items of a batch of one type of plain keys.
 *
 * The twins in Python are the rest of `Batches._of_keys` and `Batches.set_many` of metacache/operations/batches.py. Both
 * functions return None for the whole batch if a key or a value is not plain: the Python code knows what it means.
 */

#include "speed.h"

#include <stdint.h>
#include <string.h>

/* --- equal keys --------------------------------------------------------------------------------------------------- */

/* A hash table of the keys that were seen: an open table of indexes, for a set of Python costs four times as much. */
typedef struct {
    uint32_t *places; /* index + 1; 0: the place is free */
    size_t mask;
} Seen;

/* Make room for *count* keys. Returns -1 with an exception. */
static int
make_room(Seen *seen, Py_ssize_t count)
{
    size_t places = 8;
    while (places < 2 * (size_t)count) {
        places *= 2;
    }
    seen->places = PyMem_Calloc(places, sizeof(uint32_t));
    seen->mask = places - 1;
    if (seen->places == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Add the key at *index*; those before it were added. Returns 1; 0 if an equal one is there; -1 with an exception. */
static int
add(Seen *seen, PyObject *keys, Py_ssize_t index, PyObject *key)
{
    Py_hash_t hash = PyObject_Hash(key); /* of a str or bytes: it runs no Python code */
    size_t at = (size_t)hash & seen->mask;
    for (; seen->places[at] != 0; at = (at + 1) & seen->mask) { /* at least half of the places are free */
        PyObject *other = PyList_GetItem(keys, (Py_ssize_t)seen->places[at] - 1);
        if (PyObject_Hash(other) == hash) {
            int is_equal = PyObject_RichCompareBool(other, key, Py_EQ);
            if (is_equal != 0) {
                return is_equal < 0 ? -1 : 0;
            }
        }
    }
    seen->places[at] = (uint32_t)index + 1;
    return 1;
}

/* --- one request -------------------------------------------------------------------------------------------------- */

/* A piece of a line. */
typedef struct {
    const char *bytes;
    Py_ssize_t size;
} Piece;

static Piece
piece_of(PyObject *bytes)
{
    return (Piece){PyBytes_AsString(bytes), PyBytes_Size(bytes)};
}

/* Return the bytes of *key* between two pieces, or NULL with an exception. */
static PyObject *
between(Piece start, Piece key, Piece end)
{
    PyObject *line = PyBytes_FromStringAndSize(NULL, start.size + key.size + end.size);
    if (line != NULL) {
        char *to = PyBytes_AsString(line);
        memcpy(to, start.bytes, (size_t)start.size);
        memcpy(to + start.size, key.bytes, (size_t)key.size);
        memcpy(to + start.size + key.size, end.bytes, (size_t)end.size);
    }
    return line;
}

/* What all requests of a batch have in common, and the lists that are made. */
typedef struct {
    Piece prefix;
    PyObject *lead; /* bytes: the start of a line and the prefix */
    PyObject *raws;
    PyObject *heads;
} Requests;

static void
drop(Requests *requests)
{
    Py_CLEAR(requests->lead);
    Py_CLEAR(requests->raws);
    Py_CLEAR(requests->heads);
}

/* Get ready for *count* requests. Returns -1 with an exception; call `drop` in either case.
 *
 * The lists are hidden from `gc.get_objects` until they are full: to iterate over an empty place would crash. */
static int
get_ready(Requests *requests, PyObject *prefix, PyObject *start, Py_ssize_t count)
{
    static const Piece nothing = {"", 0};
    requests->prefix = piece_of(prefix);
    requests->lead = between(piece_of(start), requests->prefix, nothing);
    requests->raws = PyList_New(count);
    requests->heads = PyList_New(count);
    if (requests->lead == NULL || requests->raws == NULL || requests->heads == NULL) {
        return -1;
    }
    PyObject_GC_UnTrack(requests->raws);
    PyObject_GC_UnTrack(requests->heads);
    return 0;
}

/* Return *list*, which is full, and is hidden no more. */
static PyObject *
shown(PyObject *list)
{
    PyObject_GC_Track(list);
    return list;
}

/* Fill in the routing key and the head of one request. Returns -1 with an exception. */
static int
fill_in(const Requests *requests, Py_ssize_t index, Piece key, Piece end)
{
    static const Piece nothing = {"", 0};
    PyObject *raw = requests->prefix.size > 0 ? between(requests->prefix, key, nothing)
                                              : PyBytes_FromStringAndSize(key.bytes, key.size);
    /* Each list is new and has no other reference, so PyList_SetItem, which takes the reference, cannot fail. */
    if (raw == NULL || PyList_SetItem(requests->raws, index, raw) < 0) {
        return -1;
    }
    PyObject *head = between(piece_of(requests->lead), key, end);
    return head == NULL ? -1 : PyList_SetItem(requests->heads, index, head);
}

/* Set *piece* to the bytes of *key*. Returns 0, without an exception, if it is not plain or not of *type*. */
static int
is_plain(PyObject *key, PyTypeObject *type, Py_ssize_t prefix, Piece *piece)
{
    if (key == NULL || Py_TYPE(key) != type) {
        return 0;
    }
    piece->bytes = plain_key(key, &piece->size);
    return piece->bytes != NULL && prefix + piece->size <= MAX_KEY;
}

/* --- keys --------------------------------------------------------------------------------------------------------- */

/* Returns 1, 0 if a key is not plain or there are equal ones, -1 with an exception. Runs no Python code. */
static int
encode_all_keys(const Requests *requests, PyObject *keys, Piece end, Seen *seen)
{
    Py_ssize_t count = PyList_Size(keys);
    PyTypeObject *type = Py_TYPE(PyList_GetItem(keys, 0));
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *key = PyList_GetItem(keys, index); /* borrowed */
        Piece piece;
        if (!is_plain(key, type, requests->prefix.size, &piece)) {
            return 0;
        }
        int is_new = add(seen, keys, index, key);
        if (is_new <= 0) {
            return is_new;
        }
        if (fill_in(requests, index, piece, end) < 0) {
            return -1;
        }
    }
    return 1;
}

/* encode_keys(keys, prefix, start, end) -> (routing keys, heads); None if the keys are not plain and distinct */
PyObject *
encode_keys(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 4 || !PyBytes_CheckExact(arguments[1]) || !PyBytes_CheckExact(arguments[2]) ||
        !PyBytes_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "encode_keys takes keys and three bytes");
        return NULL;
    }
    PyObject *keys = arguments[0], *found = NULL;
    Py_ssize_t size = PyList_CheckExact(keys) ? PyList_Size(keys) : 0;
    if (size == 0 || (size_t)size >= UINT32_MAX || !is_plain_prefix(arguments[1])) {
        Py_RETURN_NONE;
    }
    Requests requests;
    Seen seen = {NULL, 0};
    int status = -1;
    if (get_ready(&requests, arguments[1], arguments[2], size) == 0 && make_room(&seen, size) == 0) {
        status = encode_all_keys(&requests, keys, piece_of(arguments[3]), &seen);
    }
    if (status == 0) {
        found = Py_NewRef(Py_None);
    }
    else if (status > 0) {
        found = PyTuple_Pack(2, shown(requests.raws), shown(requests.heads));
    }
    PyMem_Free(seen.places);
    drop(&requests);
    return found;
}

/* --- items -------------------------------------------------------------------------------------------------------- */

/* The ends of request lines by the size of the data block. */
typedef struct {
    PyObject *known; /* list: of bytes, or None where the end is not known yet */
    PyObject *make;  /* callable: size -> bytes */
    Py_ssize_t size; /* of the last data block */
    PyObject *last;  /* the end for it, owned */
} Ends;

/* Make the end for *size*, and keep it in the list. Returns NULL with an exception. */
static PyObject *
made_end(Ends *ends, Py_ssize_t size)
{
    PyObject *end = PyObject_CallFunction(ends->make, "n", size);
    if (end != NULL && !PyBytes_CheckExact(end)) {
        PyErr_SetString(PyExc_TypeError, "the end of a request line is bytes");
        Py_CLEAR(end);
    }
    if (end != NULL && size < PyList_Size(ends->known) &&
        PyList_SetItem(ends->known, size, Py_NewRef(end)) < 0) {
        Py_CLEAR(end);
    }
    return end;
}

/* Return the end for *size*, a borrowed reference that lasts until the next call; NULL with an exception. */
static PyObject *
end_for(Ends *ends, Py_ssize_t size)
{
    if (ends->last != NULL && ends->size == size) {
        return ends->last;
    }
    PyObject *end = size < PyList_Size(ends->known) ? PyList_GetItem(ends->known, size) : NULL;
    if (end != NULL && PyBytes_CheckExact(end)) {
        Py_INCREF(end);
    }
    else {
        PyErr_Clear(); /* the list became shorter in between */
        end = made_end(ends, size);
    }
    PyObject *old = ends->last;
    ends->last = end;
    ends->size = size;
    Py_XDECREF(old);
    return end;
}

/* Returns 1, 0 if a key or a body is not plain, -1 with an exception. Only making an end runs Python code. */
static int
encode_all_items(const Requests *requests, PyObject *keys, PyObject *bodies, Ends *ends, Py_ssize_t longest)
{
    Py_ssize_t count = PyList_Size(requests->heads);
    PyTypeObject *type = Py_TYPE(PyList_GetItem(keys, 0));
    for (Py_ssize_t index = 0; index < count; index++) {
        Piece key;
        PyObject *body = PyList_GetItem(bodies, index);
        Py_ssize_t size = body != NULL && PyBytes_CheckExact(body) ? PyBytes_Size(body) : -1;
        if (size < 0 || size > longest) {
            return body == NULL ? -1 : 0;
        }
        PyObject *end = end_for(ends, size);
        if (end == NULL) {
            return -1;
        }
        if (!is_plain(PyList_GetItem(keys, index), type, requests->prefix.size, &key)) {
            return PyErr_Occurred() ? -1 : 0;
        }
        if (fill_in(requests, index, key, piece_of(end)) < 0) {
            return -1;
        }
    }
    return 1;
}

/* encode_items(items, bodies, prefix, start, ends, make_end, longest) -> (keys, routing keys, heads, bodies); None if
 * something is not plain. *bodies*: a list in the order of the dict *items*, or None if each value is its own body. */
PyObject *
encode_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 7 || !PyDict_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[2]) ||
        !PyBytes_CheckExact(arguments[3]) || !PyList_CheckExact(arguments[4])) {
        PyErr_SetString(PyExc_TypeError, "encode_items was called with an argument of a wrong type");
        return NULL;
    }
    Py_ssize_t longest = PyLong_AsSsize_t(arguments[6]), size = PyDict_Size(arguments[0]);
    if (longest == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *given = arguments[1];
    int is_usual = given == Py_None || (PyList_CheckExact(given) && PyList_Size(given) == size);
    if (size == 0 || !is_usual || !is_plain_prefix(arguments[2])) {
        Py_RETURN_NONE;
    }
    Requests requests = {{NULL, 0}, NULL, NULL, NULL};
    Ends ends = {arguments[4], arguments[5], -1, NULL};
    PyObject *keys = PyDict_Keys(arguments[0]), *found = NULL;
    PyObject *bodies = given == Py_None ? PyDict_Values(arguments[0]) : Py_NewRef(given);
    int status = -1;
    if (keys != NULL && bodies != NULL && get_ready(&requests, arguments[2], arguments[3], size) == 0) {
        status = encode_all_items(&requests, keys, bodies, &ends, longest);
    }
    if (status == 0) {
        found = Py_NewRef(Py_None);
    }
    else if (status > 0) {
        found = PyTuple_Pack(4, keys, shown(requests.raws), shown(requests.heads), bodies);
    }
    Py_XDECREF(ends.last);
    Py_XDECREF(keys);
    Py_XDECREF(bodies);
    drop(&requests);
    return found;
}
