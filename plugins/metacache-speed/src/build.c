/* Builds the operations of plain gets and sets.
 *
 * The twins in Python are `Operations.get` and `Operations.set` of metacache/operations/requests.py. A builder returns
 * None for each key that is not plain, and for a value that is not plain bytes: the caller's Python code goes on from
 * there. It returns the bytes of a value whose size has no tail yet.
 */

#include "speed.h"

#include <string.h>
#include <structmember.h>

#define SLOTS 6 /* verb, given, key, head, body, read */

static const char *const slot_names[SLOTS] = {"verb", "given", "key", "head", "body", "read"};

/* What all operations of one method have in common. */
typedef struct {
    PyObject_HEAD
    PyTypeObject *type;             /* of the operations */
    allocfunc allocate;             /* of that type */
    PyObject *descriptors[SLOTS];   /* of its slots */
    descrsetfunc assign;
    PyObject *verb;
    PyObject *read;
    PyObject *prefix; /* bytes */
    PyObject *start;  /* bytes: "mg " */
    PyObject *end;    /* bytes: the flags of a get; list: the tails of a set by size */
    PyObject *dumps;  /* a set: turns a value into bytes */
    int is_raw;       /* a value of type bytes is its own body */
} Builder;

static PyObject *
new_operation(Builder *self, PyObject *given, PyObject *key, PyObject *head, PyObject *body)
{
    PyObject *operation = self->allocate(self->type, 0);
    if (operation == NULL) {
        return NULL;
    }
    PyObject *values[SLOTS] = {self->verb, given, key, head, body, self->read};
    for (int index = 0; index < SLOTS; index++) {
        if (self->assign(self->descriptors[index], operation, values[index]) < 0) {
            Py_DECREF(operation);
            return NULL;
        }
    }
    return operation;
}

/* Return the operation for *given*, whose routing key is the prefix and *bytes*. */
static PyObject *
build(Builder *self, PyObject *given, const char *bytes, Py_ssize_t size, PyObject *end, PyObject *body)
{
    Py_ssize_t prefix = PyBytes_Size(self->prefix), start = PyBytes_Size(self->start), tail = PyBytes_Size(end);
    if (prefix + size > MAX_KEY) {
        Py_RETURN_NONE;
    }
    PyObject *key = PyBytes_FromStringAndSize(NULL, prefix + size);
    PyObject *head = PyBytes_FromStringAndSize(NULL, start + prefix + size + tail);
    PyObject *operation = NULL;
    if (key != NULL && head != NULL) {
        char *raw = PyBytes_AsString(key), *line = PyBytes_AsString(head);
        memcpy(raw, PyBytes_AsString(self->prefix), (size_t)prefix);
        memcpy(raw + prefix, bytes, (size_t)size);
        memcpy(line, PyBytes_AsString(self->start), (size_t)start);
        memcpy(line + start, raw, (size_t)(prefix + size));
        memcpy(line + start + prefix + size, PyBytes_AsString(end), (size_t)tail);
        operation = new_operation(self, given, key, head, body);
    }
    Py_XDECREF(key);
    Py_XDECREF(head);
    return operation;
}

/* get(key) -> operation or None */
static PyObject *
Builder_get(PyObject *object, PyObject *key)
{
    Builder *self = (Builder *)object;
    Py_ssize_t size;
    const char *bytes = plain_key(key, &size);
    if (bytes == NULL || !PyBytes_CheckExact(self->end)) {
        Py_RETURN_NONE;
    }
    return build(self, key, bytes, size, self->end, Py_None);
}

/* Return the body of *value*; it may be any object. `dumps` may run code of the user. */
static PyObject *
body_of(Builder *self, PyObject *value)
{
    if (self->is_raw && PyBytes_CheckExact(value)) {
        return Py_NewRef(value);
    }
    PyObject *dumps = Py_NewRef(self->dumps); /* owned: the call may end the last reference to this builder */
    PyObject *body = PyObject_CallFunctionObjArgs(dumps, value, NULL);
    Py_DECREF(dumps);
    return body;
}

/* set(key, value) -> operation; the body if it has no tail yet; None if the key is not plain. Raises as `dumps`. */
static PyObject *
Builder_set(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Builder *self = (Builder *)object;
    if (count != 2 || !PyList_CheckExact(self->end)) {
        PyErr_SetString(PyExc_TypeError, "set takes a key and a value, and its builder a list of tails");
        return NULL;
    }
    Py_ssize_t size;
    const char *bytes = plain_key(arguments[0], &size);
    if (bytes == NULL || PyBytes_Size(self->prefix) + size > MAX_KEY) {
        Py_RETURN_NONE;
    }
    PyObject *body = body_of(self, arguments[1]);
    if (body == NULL || !PyBytes_CheckExact(body)) {
        return body;
    }
    Py_ssize_t length = PyBytes_Size(body);
    PyObject *tail = length < PyList_Size(self->end) ? PyList_GetItem(self->end, length) : NULL;
    if (tail == NULL || !PyBytes_CheckExact(tail)) {
        return body;
    }
    Py_INCREF(tail); /* another thread may replace it in the list */
    PyObject *operation = build(self, arguments[0], bytes, size, tail, body);
    Py_DECREF(tail);
    Py_DECREF(body);
    return operation;
}

static int
find_slots(Builder *self)
{
    self->allocate = (allocfunc)PyType_GetSlot(self->type, Py_tp_alloc);
    for (int index = 0; index < SLOTS; index++) {
        /* Interned: the cache of types does not know other strings, and the search takes 2,000 instructions. */
        PyObject *name = PyUnicode_InternFromString(slot_names[index]);
        PyObject *descriptor = name == NULL ? NULL : PyObject_GetAttr((PyObject *)self->type, name);
        Py_XDECREF(name);
        if (descriptor == NULL) {
            return -1;
        }
        self->descriptors[index] = descriptor;
        descrsetfunc assign = (descrsetfunc)PyType_GetSlot(Py_TYPE(descriptor), Py_tp_descr_set);
        if (assign == NULL || (index > 0 && assign != self->assign)) {
            PyErr_Format(PyExc_TypeError, "%s is not a slot of the operation type", slot_names[index]);
            return -1;
        }
        self->assign = assign;
    }
    return 0;
}

static PyObject *
Builder_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (keywords != NULL) { /* parsing them would make each client slower */
        PyErr_SetString(PyExc_TypeError, "Builder takes no keyword arguments");
        return NULL;
    }
    PyObject *operation, *verb, *prefix, *start, *end, *read, *dumps;
    int is_raw;
    if (!PyArg_ParseTuple(arguments, "O!OSSOOOp:Builder", &PyType_Type, &operation, &verb, &prefix, &start, &end,
                          &read, &dumps, &is_raw)) {
        return NULL;
    }
    Builder *self = (Builder *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->type = (PyTypeObject *)Py_NewRef(operation);
    self->verb = Py_NewRef(verb);
    self->prefix = Py_NewRef(prefix);
    self->start = Py_NewRef(start);
    self->end = Py_NewRef(end);
    self->read = Py_NewRef(read);
    self->dumps = Py_NewRef(dumps);
    self->is_raw = is_raw;
    if (find_slots(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Builder_traverse(PyObject *object, visitproc visit, void *arg)
{
    Builder *self = (Builder *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->type);
    for (int index = 0; index < SLOTS; index++) {
        Py_VISIT(self->descriptors[index]);
    }
    Py_VISIT(self->verb);
    Py_VISIT(self->read);
    Py_VISIT(self->end);
    Py_VISIT(self->dumps);
    return 0;
}

static int
Builder_clear(PyObject *object)
{
    Builder *self = (Builder *)object;
    /* Not NULL: a finalizer may still call a method. */
    PyObject *read = self->read, *dumps = self->dumps;
    self->read = Py_NewRef(Py_None);
    self->dumps = Py_NewRef(Py_None);
    Py_XDECREF(read);
    Py_XDECREF(dumps);
    return 0;
}

static void
Builder_dealloc(PyObject *object)
{
    Builder *self = (Builder *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_CLEAR(self->type);
    for (int index = 0; index < SLOTS; index++) {
        Py_CLEAR(self->descriptors[index]);
    }
    Py_CLEAR(self->verb);
    Py_CLEAR(self->read);
    Py_CLEAR(self->prefix);
    Py_CLEAR(self->start);
    Py_CLEAR(self->end);
    Py_CLEAR(self->dumps);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"get", Builder_get, METH_O, NULL},
    {"set", (PyCFunction)(void (*)(void))Builder_set, METH_FASTCALL, NULL},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Builder_new},         {Py_tp_dealloc, Builder_dealloc}, {Py_tp_methods, methods},
    {Py_tp_traverse, Builder_traverse}, {Py_tp_clear, Builder_clear},     {0},
};

static PyType_Spec spec = {
    .name = "metacache_speed.Builder",
    .basicsize = sizeof(Builder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyObject *
make_builder_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
