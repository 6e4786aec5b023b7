/* Weighted rendezvous hashing: the position of the node of least cost for a key.
 *
 * The twin in Python, and the formula, are in metacache/routing/rendezvous.py. Within a group of equal weights the
 * greatest ``h >> 12`` wins, so only a router with several weights needs logarithms. Of equal costs, the least position
 * wins.
 */

#include "speed.h"

#include <math.h>
#include <stdint.h>
#include <structmember.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define DROPPED_BITS 12

typedef struct {
    uint64_t seed;
    Py_ssize_t position; /* in the order of the nodes' names */
    Py_ssize_t group;
} Candidate;

typedef struct {
    PyObject_HEAD
    Py_ssize_t nodes;      /* how many nodes the router has, drained ones included */
    Py_ssize_t candidates; /* how many have a weight above 0 */
    Py_ssize_t groups;
    Candidate *candidate; /* group by group; in a group by ascending position */
    double *weight;       /* of each group */
} Owners;

static Py_ssize_t
owner_of(const Owners *self, const char *key, size_t size)
{
    Py_ssize_t owner = 0, index = 0;
    double least = INFINITY;
    if (self->candidates == 1) {
        return self->candidate[0].position;
    }
    for (Py_ssize_t group = 0; group < self->groups; group++) {
        Py_ssize_t best = self->candidate[index].position;
        uint64_t highest = XXH3_64bits_withSeed(key, size, self->candidate[index].seed) >> DROPPED_BITS;
        for (index++; index < self->candidates && self->candidate[index].group == group; index++) {
            uint64_t kept = XXH3_64bits_withSeed(key, size, self->candidate[index].seed) >> DROPPED_BITS;
            if (kept > highest) {
                highest = kept;
                best = self->candidate[index].position;
            }
        }
        if (self->groups == 1) {
            return best;
        }
        double cost = -log(((double)highest + 0.5) * 0x1p-52) / self->weight[group];
        if (cost < least || (cost == least && best < owner)) {
            least = cost;
            owner = best;
        }
    }
    return owner;
}

/* pick(key) -> position of the owner; None if the key is not bytes */
static PyObject *
Owners_pick(PyObject *object, PyObject *key)
{
    if (!PyBytes_CheckExact(key)) {
        Py_RETURN_NONE;
    }
    return PyLong_FromSsize_t(owner_of((Owners *)object, PyBytes_AsString(key), (size_t)PyBytes_Size(key)));
}

/* Return a list of *count* empty lists. */
static PyObject *
empty_lists(Py_ssize_t count)
{
    PyObject *lists = PyList_New(count);
    for (Py_ssize_t index = 0; lists != NULL && index < count; index++) {
        PyObject *list = PyList_New(0);
        if (list == NULL) {
            Py_CLEAR(lists);
        }
        else {
            PyList_SetItem(lists, index, list); /* takes the reference, and cannot fail here */
        }
    }
    return lists;
}

/* Fill the list of the only node with the index of each key. Returns as `share`. */
static int
share_of_one(const Owners *self, PyObject *keys, PyObject *shares)
{
    Py_ssize_t count = PyList_Size(keys);
    PyObject *list = PyList_New(count);
    int status = list == NULL ? -1 : 1;
    for (Py_ssize_t index = 0; status == 1 && index < count; index++) {
        PyObject *number = PyLong_FromSsize_t(index), *key = PyList_GetItem(keys, index);
        status = number == NULL || key == NULL ? -1 : PyBytes_CheckExact(key);
        if (number != NULL) {
            PyList_SetItem(list, index, number); /* takes the reference, and cannot fail here */
        }
    }
    if (status == 1) {
        return PyList_SetItem(shares, self->candidate[0].position, list) < 0 ? -1 : 1;
    }
    Py_XDECREF(list);
    return status;
}

/* Append the index of each key to the list of its owner. Returns 1, 0 if a key is not bytes, -1 with an exception. */
static int
share(const Owners *self, PyObject *keys, PyObject *shares)
{
    for (Py_ssize_t index = 0; index < PyList_Size(keys); index++) {
        PyObject *key = PyList_GetItem(keys, index); /* borrowed; no Python code runs before its last use */
        if (key == NULL || !PyBytes_CheckExact(key)) {
            return key == NULL ? -1 : 0;
        }
        Py_ssize_t owner = owner_of(self, PyBytes_AsString(key), (size_t)PyBytes_Size(key));
        PyObject *number = PyLong_FromSsize_t(index), *list = PyList_GetItem(shares, owner);
        int status = number == NULL || list == NULL ? -1 : PyList_Append(list, number);
        Py_XDECREF(number);
        if (status < 0) {
            return -1;
        }
    }
    return 1;
}

/* shares(keys) -> for each node, the list of the indexes of the keys that it owns; None if a key is not bytes */
static PyObject *
Owners_shares(PyObject *object, PyObject *keys)
{
    const Owners *self = (Owners *)object;
    if (!PyList_CheckExact(keys)) {
        Py_RETURN_NONE;
    }
    PyObject *shares = empty_lists(self->nodes);
    if (shares == NULL) {
        return NULL;
    }
    int status = self->candidates == 1 ? share_of_one(self, keys, shares) : share(self, keys, shares);
    if (status == 1) {
        return shares;
    }
    Py_DECREF(shares);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* Fill one group from (weight, positions); *seeds* has the seeds of all candidates in order. Returns -1 on failure. */
static int
add_group(Owners *self, PyObject *group, PyObject *seeds, Py_ssize_t *filled)
{
    PyObject *positions;
    double weight;
    if (!PyTuple_Check(group)) {
        PyErr_SetString(PyExc_TypeError, "a group is a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(group, "dO!", &weight, &PyTuple_Type, &positions)) {
        return -1;
    }
    self->weight[self->groups] = weight;
    if (PyTuple_Size(positions) == 0) {
        PyErr_SetString(PyExc_ValueError, "a group without nodes");
        return -1;
    }
    for (Py_ssize_t index = 0; index < PyTuple_Size(positions); index++) {
        if (*filled >= self->candidates) {
            PyErr_SetString(PyExc_ValueError, "more positions than seeds");
            return -1;
        }
        Candidate *candidate = &self->candidate[*filled];
        candidate->seed = PyLong_AsUnsignedLongLong(PyTuple_GetItem(seeds, *filled));
        candidate->position = PyLong_AsSsize_t(PyTuple_GetItem(positions, index));
        candidate->group = self->groups;
        if (PyErr_Occurred()) {
            return -1;
        }
        if (candidate->position < 0 || candidate->position >= self->nodes) {
            PyErr_SetString(PyExc_ValueError, "a position outside of the nodes");
            return -1;
        }
        *filled += 1;
    }
    self->groups += 1;
    return 0;
}

static PyObject *
Owners_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"nodes", "groups", "seeds", NULL};
    Py_ssize_t nodes;
    PyObject *groups, *seeds;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "nO!O!:Owners", names, &nodes, &PyTuple_Type, &groups, &PyTuple_Type, &seeds)) {
        return NULL;
    }
    Owners *self = (Owners *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->nodes = nodes < 0 ? 0 : nodes;
    self->candidates = PyTuple_Size(seeds);
    self->candidate = PyMem_Calloc((size_t)self->candidates, sizeof(Candidate));
    self->weight = PyMem_Calloc((size_t)PyTuple_Size(groups), sizeof(double));
    if (self->candidate == NULL || self->weight == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    Py_ssize_t filled = 0;
    for (Py_ssize_t index = 0; index < PyTuple_Size(groups); index++) {
        if (add_group(self, PyTuple_GetItem(groups, index), seeds, &filled) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    if (filled != self->candidates || filled == 0) {
        PyErr_SetString(PyExc_ValueError, "as many seeds as positions, at least one");
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
Owners_dealloc(PyObject *object)
{
    Owners *self = (Owners *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(self->candidate);
    PyMem_Free(self->weight);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"pick", Owners_pick, METH_O, NULL},
    {"shares", Owners_shares, METH_O, NULL},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Owners_new},
    {Py_tp_dealloc, Owners_dealloc},
    {Py_tp_methods, methods},
    {0},
};

static PyType_Spec spec = {
    .name = "metacache_speed.Owners",
    .basicsize = sizeof(Owners),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

PyObject *
make_owners_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
