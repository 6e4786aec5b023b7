/* What the files of this extension share. Each file is one primitive of metacache/acceleration.py, which says what a
 * primitive does. Every function runs with the GIL held, unless it says otherwise. */
#ifndef METACACHE_SPEED_H
#define METACACHE_SPEED_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define MAX_KEY 250 /* bytes of a key on the wire */

/* The number of the interface in metacache/acceleration.py. Increase both when a primitive changes its meaning. */
#define API 4

/* Return the bytes of *key* and set their number; NULL, without an exception, if it is not plain. A plain key is a str
 * or bytes of 1 to MAX_KEY ASCII characters above the space. The bytes belong to *key*. */
const char *plain_key(PyObject *key, Py_ssize_t *size);

/* Return whether a plain key stays plain behind *prefix*, which is bytes. */
int is_plain_prefix(PyObject *prefix);

/* Return the descriptor of an Exchange; -1 if it was closed, or if *object* is something else. */
int descriptor_of(PyObject *object);

PyObject *make_exchange_type(PyObject *module);
PyObject *make_builder_type(PyObject *module);
PyObject *make_owners_type(PyObject *module);

/* The functions of the module. */
PyObject *are_same(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *count_lines(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *encode_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *encode_keys(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *exchange_parts(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *found_values(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *join_window(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *place_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *read_window(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *take_items(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *total_size(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* Of pending.c and link.c, for asyncio. They need the state of the module, which pending.h defines. */
int add_pending(PyObject *module);
int traverse_state(PyObject *module, visitproc visit, void *arg);
int clear_state(PyObject *module);
PyObject *queue_request(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *wake_tasks(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *frame_requests(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *give_answers(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *read_answers(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
