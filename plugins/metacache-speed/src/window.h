/* The parser of plain replies in window.c, for the primitives that read them. */
#ifndef METACACHE_WINDOW_H
#define METACACHE_WINDOW_H

#include "speed.h"

/* The replies of one window, and the tables that say what they mean. All objects are borrowed. */
typedef struct {
    const char *data;
    Py_ssize_t size; /* bytes of data */
    Py_ssize_t limit;
    Py_ssize_t count; /* replies of the window */
    PyObject *first;  /* bytes: the end of the first header line, a space and the opaque */
    PyObject *last;   /* the same of the last one */
    PyObject *whole;  /* frozenset: header lines that are replies without a value */
    int has_value;
    PyObject *sizes;   /* dict: header line -> size of its value, -1 if it announces none */
    PyObject *learn;   /* callable: header line -> (size, tokens); fills the dict */
    PyObject *headers; /* list of the replies that were read */
    PyObject *values;  /* list, parallel */
    int is_short;      /* set by read_replies: more bytes may complete the next reply */
} Reading;

/* The header line that was seen last: lines repeat. */
typedef struct {
    PyObject *line; /* bytes, owned */
    const char *bytes;
    Py_ssize_t length;
    Py_ssize_t size; /* of its value, or one of two numbers below 0 */
} Header;

extern const Header NO_HEADER;

/* Return whether the tables and lists have the right types. */
int is_valid_reading(const Reading *reading);

/* Read plain replies from *position* on, and append them to the lists. Return the position after the last one; -1 with
 * an exception. `learn` runs Python code. */
Py_ssize_t read_replies(Reading *reading, Header *header, Py_ssize_t position);

#endif
