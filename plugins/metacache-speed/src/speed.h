#ifndef METACACHE_SPEED_H
#define METACACHE_SPEED_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
PyObject *make_exchange_type(PyObject *module);
PyObject *make_builder_type(PyObject *module);
PyObject *make_owners_type(PyObject *module);
#endif
