/* The module metacache_speed._speed. */

#include "pending.h"

static int
add(PyObject *module, const char *name, PyObject *object)
{
    if (object == NULL) {
        return -1;
    }
    int status = PyModule_AddObjectRef(module, name, object);
    Py_DECREF(object);
    return status;
}

static int
add_all(PyObject *module)
{
    int failed = PyModule_AddIntConstant(module, "API", API) < 0 ||
                 add(module, "Exchange", make_exchange_type(module)) < 0 ||
                 add(module, "Builder", make_builder_type(module)) < 0 ||
                 add(module, "Owners", make_owners_type(module)) < 0 ||
                 add_pending(module) < 0;
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_all},
    {0, NULL},
};

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef functions[] = {
    FUNCTION(are_same),
    FUNCTION(count_lines),
    FUNCTION(encode_items),
    FUNCTION(encode_keys),
    FUNCTION(exchange_parts),
    FUNCTION(found_values),
    FUNCTION(frame_requests),
    FUNCTION(give_answers),
    FUNCTION(join_window),
    FUNCTION(place_items),
    FUNCTION(queue_request),
    FUNCTION(read_answers),
    FUNCTION(read_window),
    FUNCTION(take_items),
    FUNCTION(total_size),
    FUNCTION(wake_tasks),
    {NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_speed",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse_state,
    .m_clear = clear_state,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModuleDef_Init(&definition);
}
