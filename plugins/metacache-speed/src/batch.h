/* The lists of a batch, for the primitives that join requests or place replies. See batch.c. */
#ifndef METACACHE_BATCH_H
#define METACACHE_BATCH_H

#include "speed.h"

/* A list or a tuple. */
typedef struct {
    PyObject *items;
    int is_list;
    Py_ssize_t size;
} Sequence;

/* Requests that are sent together: those from *start* to *stop*, or with *indices* those at these indices. */
typedef struct {
    Sequence heads;
    Sequence bodies;
    int has_bodies;
    const Sequence *indices; /* NULL, or ints; then *start* and *stop* are positions in it */
    Py_ssize_t start;
    Py_ssize_t stop;
    PyObject *first; /* bytes: what follows the first head */
    PyObject *last;
} Span;

/* Returns 0, without an exception, if *object* is neither a list nor a tuple. */
int is_sequence(PyObject *object, Sequence *sequence);

/* Return a borrowed reference. *index* must be below the size, which does not change while no Python code runs. */
PyObject *item(const Sequence *sequence, Py_ssize_t index);

/* Return the bytes of the requests; Py_None if one is not bytes or not there, or if they have more than *limit* bytes;
 * NULL with an exception. */
PyObject *join_span(const Span *span, Py_ssize_t limit);

/* Put each of *parts* into the list *whole* at its index. Returns 1, 0 if nothing was changed, -1 with an exception. */
int place(const Sequence *whole, const Sequence *indices, const Sequence *parts);

#endif
