/* Whether a value is the same as the one that was decoded for it, in the usual case.
 *
 * The twin in Python is `Comparer` of metacache/serializers/comparison.py, which also decides every case that this file
 * leaves undecided: another class, another order, a part of a class that is not in *fields*. This file never finds two
 * values different. It calls `==` of builtin classes only.
 */

#include "speed.h"

#include <string.h>

/* Levels. Deeper values are left to the Python code, which has a limit of its own. */
#define DEEPEST 50

/* 1: the same. 0: undecided. -1: an exception, which code of the user raised. */
typedef int Verdict;

static Verdict parts_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth);

static Verdict
floats_are_same(PyObject *value, PyObject *decoded)
{
    double one = PyFloat_AsDouble(value), other = PyFloat_AsDouble(decoded);
    return memcmp(&one, &other, sizeof(one)) == 0; /* neither 0.0 and -0.0, nor two NaN of other bits */
}

/* The caller owns neither list, and code of the user may change both: each part is owned while it is compared. */
static Verdict
lists_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth)
{
    Verdict verdict = PyList_Size(value) == PyList_Size(decoded);
    for (Py_ssize_t index = 0; verdict == 1 && index < PyList_Size(value) && index < PyList_Size(decoded); index++) {
        PyObject *part = Py_NewRef(PyList_GetItem(value, index)), *other = Py_NewRef(PyList_GetItem(decoded, index));
        verdict = parts_are_same(part, other, fields, depth);
        Py_DECREF(part);
        Py_DECREF(other);
    }
    return verdict;
}

static Verdict
tuples_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth)
{
    Verdict verdict = PyTuple_Size(value) == PyTuple_Size(decoded);
    for (Py_ssize_t index = 0; verdict == 1 && index < PyTuple_Size(value); index++) {
        verdict = parts_are_same(
            PyTuple_GetItem(value, index), PyTuple_GetItem(decoded, index), fields, depth);
    }
    return verdict;
}

/* Two dicts in one order. */
static Verdict
dicts_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth)
{
    Py_ssize_t position = 0, place = 0;
    PyObject *key, *part, *name, *other;
    Verdict verdict = PyDict_Size(value) == PyDict_Size(decoded);
    while (verdict == 1 && PyDict_Next(value, &position, &key, &part)) {
        if (!PyDict_Next(decoded, &place, &name, &other)) {
            return 0;
        }
        Py_INCREF(key), Py_INCREF(part), Py_INCREF(name), Py_INCREF(other);
        verdict = parts_are_same(key, name, fields, depth);
        verdict = verdict == 1 ? parts_are_same(part, other, fields, depth) : verdict;
        Py_DECREF(key), Py_DECREF(part), Py_DECREF(name), Py_DECREF(other);
    }
    return verdict;
}

/* Return the class if all elements of *set* are exactly int, str or bytes, whose hash and `==` are builtin. */
static PyTypeObject *
class_of_elements(PyObject *set)
{
    PyTypeObject *class = NULL;
    PyObject *iterator = PyObject_GetIter(set), *element;
    if (iterator == NULL) {
        return NULL;
    }
    while ((element = PyIter_Next(iterator)) != NULL) {
        PyTypeObject *found = Py_TYPE(element);
        Py_DECREF(element);
        if (found != &PyUnicode_Type && found != &PyLong_Type && found != &PyBytes_Type) {
            class = NULL;
            break;
        }
        if (class != NULL && class != found) {
            class = NULL;
            break;
        }
        class = found;
    }
    Py_DECREF(iterator);
    return class;
}

static Verdict
sets_are_same(PyObject *value, PyObject *decoded)
{
    if (PySet_Size(value) == 0 && PySet_Size(decoded) == 0) {
        return 1;
    }
    PyTypeObject *class = class_of_elements(value);
    if (class == NULL || class != class_of_elements(decoded)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return PyObject_RichCompareBool(value, decoded, Py_EQ);
}

/* Two records of one class: the attributes *names*, which is a tuple, are all their parts. */
static Verdict
records_are_same(PyObject *value, PyObject *decoded, PyObject *names, PyObject *fields, int depth)
{
    Verdict verdict = 1;
    for (Py_ssize_t index = 0; verdict == 1 && index < PyTuple_Size(names); index++) {
        PyObject *name = PyTuple_GetItem(names, index);
        PyObject *part = PyObject_GetAttr(value, name);
        PyObject *other = part == NULL ? NULL : PyObject_GetAttr(decoded, name);
        verdict = other == NULL ? -1 : parts_are_same(part, other, fields, depth);
        Py_XDECREF(part);
        Py_XDECREF(other);
    }
    return verdict;
}

/* Return whether an attribute is one object in both values, and which may be one: *limit* is (name, object, ...). */
static Verdict
is_within(PyObject *value, PyObject *decoded, PyObject *limit)
{
    if (!PyTuple_CheckExact(limit) || PyTuple_Size(limit) == 0) {
        return 0;
    }
    PyObject *name = PyTuple_GetItem(limit, 0);
    PyObject *part = PyObject_GetAttr(value, name);
    PyObject *other = part == NULL ? NULL : PyObject_GetAttr(decoded, name);
    Verdict verdict = other == NULL ? -1 : 0;
    for (Py_ssize_t index = 1; part != NULL && part == other && index < PyTuple_Size(limit); index++) {
        verdict |= PyTuple_GetItem(limit, index) == part;
    }
    Py_XDECREF(part);
    Py_XDECREF(other);
    return verdict;
}

/* Two values of a builtin class that `==` compares if their attributes are within *limits*, a list. */
static Verdict
pieces_are_same(PyObject *value, PyObject *decoded, PyObject *limits)
{
    for (Py_ssize_t index = 0; index < PyList_Size(limits); index++) {
        Verdict verdict = is_within(value, decoded, PyList_GetItem(limits, index));
        if (verdict != 1) {
            return verdict;
        }
    }
    return PyObject_RichCompareBool(value, decoded, Py_EQ);
}

/* Two values of one class that is no builtin container. */
static Verdict
others_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth)
{
    PyObject *found = PyDict_GetItemWithError(fields, (PyObject *)Py_TYPE(value));
    if (found == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(found); /* code of the user may change the dict */
    Verdict verdict = PyTuple_CheckExact(found)  ? records_are_same(value, decoded, found, fields, depth)
                      : PyList_CheckExact(found) ? pieces_are_same(value, decoded, found)
                                                 : 0;
    Py_DECREF(found);
    return verdict;
}

static Verdict
parts_are_same(PyObject *value, PyObject *decoded, PyObject *fields, int depth)
{
    PyTypeObject *class = Py_TYPE(value);
    if (value == decoded) {
        return 1;
    }
    if (class != Py_TYPE(decoded) || depth == DEEPEST) {
        return 0;
    }
    if (class == &PyUnicode_Type || class == &PyLong_Type || class == &PyBytes_Type) {
        return PyObject_RichCompareBool(value, decoded, Py_EQ);
    }
    if (class == &PyFloat_Type) {
        return floats_are_same(value, decoded);
    }
    if (class == &PyList_Type) {
        return lists_are_same(value, decoded, fields, depth + 1);
    }
    if (class == &PyDict_Type) {
        return dicts_are_same(value, decoded, fields, depth + 1);
    }
    if (class == &PyTuple_Type) {
        return tuples_are_same(value, decoded, fields, depth + 1);
    }
    if (class == &PySet_Type || class == &PyFrozenSet_Type) {
        return sets_are_same(value, decoded);
    }
    return others_are_same(value, decoded, fields, depth + 1);
}

/* are_same(value, decoded, fields) -> True; False if the Python code must decide */
PyObject *
are_same(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || !PyDict_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "are_same takes two values and a dict");
        return NULL;
    }
    Verdict verdict = parts_are_same(arguments[0], arguments[1], arguments[2], 0);
    return verdict < 0 ? NULL : PyBool_FromLong(verdict);
}
