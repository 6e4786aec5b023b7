"""Builds the extension module for the stable ABI, so that one wheel serves each CPython from 3.11 on."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "metacache_speed._speed",
            sources=["src/module.c", "src/keys.c", "src/exchange.c", "src/build.c", "src/batch.c", "src/routing.c"],
            depends=["src/speed.h"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            py_limited_api=True,
            libraries=["m"],
            extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-Werror=implicit-function-declaration", "-Wno-missing-field-initializers", "-Wno-cast-function-type"],
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
