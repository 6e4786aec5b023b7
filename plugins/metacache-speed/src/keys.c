/* Plain keys: those that are sent unchanged. */

#include "speed.h"

#include <stdint.h>
#include <string.h>

/* The same number in each of the 8 bytes of a word. */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Return whether 8 bytes are ASCII characters above the space. */
static int
is_plain_word(const char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    /* A byte below 0x80 reaches the high bit with 0x5f if it is above 0x20, and with 1 if it is 0x7f. Nothing is carried
     * into the next byte. */
    uint64_t low = word + EACH(0x5f), high = word + EACH(0x01);
    return (word & EACH(0x80)) == 0 && (low & ~high & EACH(0x80)) == EACH(0x80);
}

/* Return whether all bytes are ASCII characters above the space. It checks 8 bytes in one step. */
static int
are_plain(const char *bytes, Py_ssize_t size)
{
    if (size < 8) {
        for (Py_ssize_t index = 0; index < size; index++) {
            unsigned char byte = (unsigned char)bytes[index];
            if (byte <= 0x20 || byte >= 0x7f) {
                return 0;
            }
        }
        return 1;
    }
    for (Py_ssize_t index = 0; index < size - 8; index += 8) {
        if (!is_plain_word(bytes + index)) {
            return 0;
        }
    }
    return is_plain_word(bytes + size - 8); /* it may repeat some bytes */
}

int
is_plain_prefix(PyObject *prefix)
{
    return are_plain(PyBytes_AsString(prefix), PyBytes_Size(prefix));
}

const char *
plain_key(PyObject *key, Py_ssize_t *size)
{
    const char *bytes;
    if (PyUnicode_CheckExact(key)) {
        /* A longer str may be without UTF-8 form yet, and Python would keep that form with the str. */
        if (PyUnicode_GetLength(key) > MAX_KEY) {
            return NULL;
        }
        bytes = PyUnicode_AsUTF8AndSize(key, size);
        if (bytes == NULL) {
            PyErr_Clear(); /* a lone surrogate, or no memory: the Python code raises the right error */
            return NULL;
        }
    }
    else if (PyBytes_CheckExact(key)) {
        bytes = PyBytes_AsString(key);
        *size = PyBytes_Size(key);
    }
    else {
        return NULL;
    }
    return *size > 0 && *size <= MAX_KEY && are_plain(bytes, *size) ? bytes : NULL;
}
