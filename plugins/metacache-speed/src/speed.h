#ifndef METACACHE_SPEED_H
#define METACACHE_SPEED_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define MAX_KEY 250 /* bytes of a key on the wire */

/* Return the bytes of *key* and set their number; NULL, without an exception, if it is not plain. A plain key is a str
 * or bytes of 1 to MAX_KEY ASCII characters above the space. The bytes belong to *key*. */
const char *plain_key(PyObject *key, Py_ssize_t *size);

PyObject *make_exchange_type(PyObject *module);
PyObject *make_builder_type(PyObject *module);
PyObject *make_owners_type(PyObject *module);

PyObject *get_heads(PyObject *module, PyObject *arguments);
PyObject *set_heads(PyObject *module, PyObject *arguments);
PyObject *read_window(PyObject *module, PyObject *arguments);

#endif
