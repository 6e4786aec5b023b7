/* Weighted rendezvous hashing: the position of the node of least cost for a key.
 *
 * The formula is that of metacache/routing/rendezvous.py. Within a group of equal weights the greatest ``h >> 12`` wins,
 * so only a router with several weights needs logarithms. Equal costs go to the least position.
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

/* pick(key) -> position of the owner */
static PyObject *
Owners_pick(PyObject *object, PyObject *key)
{
    if (!PyBytes_CheckExact(key)) {
        PyErr_SetString(PyExc_TypeError, "pick takes bytes");
        return NULL;
    }
    return PyLong_FromSsize_t(owner_of((Owners *)object, PyBytes_AsString(key), (size_t)PyBytes_Size(key)));
}

/* shares(keys) -> for each node, the list of the indexes of the keys that it owns */
static PyObject *
Owners_shares(PyObject *object, PyObject *keys)
{
    const Owners *self = (Owners *)object;
    if (!PyList_CheckExact(keys)) {
        PyErr_SetString(PyExc_TypeError, "shares takes a list of bytes");
        return NULL;
    }
    PyObject *shares = PyList_New(self->nodes);
    if (shares == NULL) {
        return NULL;
    }
    for (Py_ssize_t position = 0; position < self->nodes; position++) {
        PyObject *share = PyList_New(0);
        if (share == NULL) {
            Py_DECREF(shares);
            return NULL;
        }
        PyList_SetItem(shares, position, share);
    }
    for (Py_ssize_t index = 0; index < PyList_Size(keys); index++) {
        PyObject *key = PyList_GetItem(keys, index); /* borrowed; no Python code runs before its last use */
        if (!PyBytes_CheckExact(key)) {
            PyErr_SetString(PyExc_TypeError, "shares takes a list of bytes");
            Py_DECREF(shares);
            return NULL;
        }
        Py_ssize_t owner = owner_of(self, PyBytes_AsString(key), (size_t)PyBytes_Size(key));
        PyObject *number = PyLong_FromSsize_t(index);
        if (number == NULL || PyList_Append(PyList_GetItem(shares, owner), number) < 0) {
            Py_XDECREF(number);
            Py_DECREF(shares);
            return NULL;
        }
        Py_DECREF(number);
    }
    return shares;
}

/* Fill one group from (weight, positions); *seeds* has the seeds of all candidates in order. Returns -1 on failure. */
static int
add_group(Owners *self, PyObject *group, PyObject *seeds, Py_ssize_t *filled)
{
    PyObject *positions;
    double weight;
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
    self->nodes = nodes;
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
