/* Plain keys: those that are sent unchanged. */

#include "speed.h"

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
    if (*size == 0 || *size > MAX_KEY) {
        return NULL;
    }
    for (Py_ssize_t index = 0; index < *size; index++) {
        unsigned char byte = (unsigned char)bytes[index];
        if (byte <= 0x20 || byte >= 0x7f) {
            return NULL;
        }
    }
    return bytes;
}
