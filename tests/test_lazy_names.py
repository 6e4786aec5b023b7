"""Public names are loaded when they are first used, and a blocking client without TLS loads neither asyncio nor ssl."""

from __future__ import annotations

import ast
import importlib
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import metacache
import metacache.discovery
import metacache.routing
import metacache.serializers
from metacache.testing import Memcached

PACKAGES: Final = (metacache, metacache.discovery, metacache.routing, metacache.serializers)


def declared(package: ModuleType) -> dict[str, str]:
    """Return the module of each name that *package* imports under TYPE_CHECKING."""
    assert package.__file__ is not None
    body = ast.parse(Path(package.__file__).read_text()).body
    (guarded,) = [node for node in body if isinstance(node, ast.If)]
    assert ast.unparse(guarded.test) == "TYPE_CHECKING"
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(guarded.body)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def run(program: str, *arguments: str) -> str:
    """Run *program* in an interpreter of its own, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_and_python_find_each_name_in_the_same_module(package: ModuleType) -> None:
    table: dict[str, str] = vars(package)["_MODULES"]
    names = {name: module for module, listed in table.items() for name in listed.split()}
    assert names == declared(package)
    assert set(names) == set(package.__all__)
    for name, module in names.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_public_name_is_the_name_of_a_module(package: ModuleType) -> None:
    """Importing such a module would replace the name in the package."""
    assert package.__file__ is not None
    modules = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert modules.isdisjoint(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_dir_and_help_show_every_name_before_it_is_loaded(package: ModuleType) -> None:
    program = f"import {package.__name__} as package; print(*dir(package))"
    assert set(package.__all__) <= set(run(program).split())
    shown = pydoc.plain(pydoc.render_doc(package))
    assert [name for name in package.__all__ if name not in shown] == []


def test_a_star_import_gives_every_name() -> None:
    assert set(metacache.__all__) <= set(run("from metacache import *; print(*dir())").split())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_an_unknown_name_is_the_usual_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"^module '{package.__name__}' has no attribute 'conect'$"):
        package.conect  # noqa: B018  # the access is tested
    with pytest.raises(ImportError, match="cannot import name 'conect'"):
        exec(f"from {package.__name__} import conect")  # as a statement, no type checker accepts it
    assert not hasattr(package, "conect")


def test_a_class_from_the_package_is_pickled_and_is_one_class() -> None:
    node = pickle.loads(pickle.dumps(metacache.Node("cache-1:11211")))
    assert isinstance(node, metacache.Node)
    assert metacache.Node is importlib.import_module("metacache.nodes").Node


def test_threads_that_load_names_at_the_same_time_get_the_same_objects() -> None:
    program = """if True:
        import sys, threading
        sys.setswitchinterval(1e-6)
        import metacache
        start, found = threading.Barrier(8), []
        def load():
            start.wait()
            found.append([getattr(metacache, name) for name in metacache.__all__])
        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), all(each == found[0] for each in found))
    """
    assert run(program) == "8 True"


# --- what is not loaded ----------------------------------------------------------------------------------------------

HEAVY: Final = ("asyncio", "ssl")
LOADED: Final = f"print(*[name for name in {HEAVY} if name in sys.modules])"


def test_importing_the_package_loads_nothing_of_it() -> None:
    assert run("import sys, metacache; print(*sorted(name for name in sys.modules if 'metacache.' in name))") == (
        "metacache.lazy_names"
    )


@pytest.mark.parametrize("name", ["connect", "Client", "Cluster", "Pool", "Connection", "Settings", "Node", "Zlib"])
def test_importing_a_blocking_name_loads_neither_asyncio_nor_ssl(name: str) -> None:
    assert run(f"import sys; from metacache import {name}; {LOADED}") == ""


USES: Final = {
    "bytes": ("bytes", "None", "b'value'"),
    "str": ("str", "None", "'value'"),
    "int": ("int", "None", "42"),
    "bytes by name": ("bytes", "'bytes'", "b'value'"),
    "json": ("list[int]", "'json'", "[1, 2]"),
}


@pytest.mark.parametrize("name", USES)
def test_a_blocking_client_without_tls_loads_neither_asyncio_nor_ssl(shared_memcached: Memcached, name: str) -> None:
    type_, serializer, value = USES[name]
    program = f"""if True:
        import sys
        from metacache import connect
        with connect(sys.argv[1], {type_}, serializer={serializer}, prefix="lazy:") as client:
            assert client.set("key", {value}) and client.get("key") == {value}
            assert client.set_many({{"key": {value}}}) and client.get_many(["key", "none"])
            assert client.get_or_compute("other", lambda: {value}, ttl=60) == {value}
        {LOADED}
    """
    assert run(program, shared_memcached.url) == ""


# What a blocking client of a URL does not need before one of these is used: `get_or_compute` and its relatives, the
# embedded server, an observer, a compressor, a log line. Only type checkers need typing_extensions.
LATER: Final = (
    *("metacache.caching.core", "metacache.client.blocking_caching", "metacache.memory", "metacache.client.calls"),
    *("metacache.client.blocking_observed", "metacache.serializers.compression", "metacache.routing.reports"),
    *("metacache.transports.observed", "metacache.transports.blocking.observed", "metacache.pool.statistics"),
    *("metacache.discovery", "concurrent.futures", "zlib", "random", "urllib.parse", "uuid"),
    *("logging", "typing_extensions"),
)


def test_a_client_that_gets_and_sets_loads_no_more_than_that(shared_memcached: Memcached) -> None:
    program = f"""if True:
        import sys
        from metacache import connect
        with connect(sys.argv[1], prefix="later:") as client:
            assert client.set("key", b"value") and client.get("key") == b"value"
            assert client.get_many(["key", "none"]) and client.statistics.hits == 2
        print("early:", *[name for name in {LATER} if name in sys.modules])
        client = connect("memory://")
        assert client.get_or_compute("key", lambda: b"value") == b"value"
        print(*[name for name in {LATER} if name in sys.modules])
    """
    first, _, then = run(program, shared_memcached.url).partition("\n")
    assert first == "early:"
    assert {"metacache.caching.core", "metacache.client.blocking_caching", "metacache.memory"} <= set(then.split())


def test_a_dial_that_fails_loads_neither_asyncio_nor_ssl() -> None:
    program = f"""if True:
        import sys
        from metacache import connect, ConnectError
        try:
            connect("memcached://127.0.0.1:1").get("key")
        except ConnectError as error:
            assert "refused" in str(error)
        {LOADED}
    """
    assert run(program) == ""


def test_the_check_would_see_a_module_that_is_loaded() -> None:
    assert run(f"import sys; from metacache import connect_async; {LOADED}") == "asyncio ssl"
