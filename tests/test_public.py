"""The shop window: what it shows is documented, and looking at it loads no plugin."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Final

import pytest

import metacache

# What is not the language's or the library's own to document.
CLASSES: Final = [name for name in metacache.__all__ if inspect.isclass(getattr(metacache, name))]
FUNCTIONS: Final = [name for name in metacache.__all__ if inspect.isfunction(getattr(metacache, name))]

CONTRACT: Final = """Client AsyncClient connect connect_async Cluster AsyncCluster Pool AsyncPool Connection
AsyncConnection Transport AsyncTransport Node RendezvousRouter Router Item Metadata Outcomes StoreResult DeleteResult
Serializer SerializerPlugin load_serializer available_serializers Zlib Settings MetacacheError InvalidKeyError
InvalidArgumentError ValueTooLargeError ConflictError SerializationError DecodeError SerializerNotFound ServerError
ClientError AuthenticationError ProtocolError TransportError ConnectError ConnectionLost OperationTimeout NodeDownError
PoolTimeout ClosedError BatchError""".split()  # noqa: SIM905 - read as a list of words


def test_everything_promised_is_there() -> None:
    assert set(CONTRACT) <= set(metacache.__all__)
    assert all(hasattr(metacache, name) for name in metacache.__all__)
    assert len(set(metacache.__all__)) == len(metacache.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_and_all_it_offers_is_documented(name: str) -> None:
    class_: type = getattr(metacache, name)
    assert (class_.__doc__ or "").strip()
    undocumented = [
        member
        for member, value in vars(class_).items()
        if not member.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property | classmethod))
        and not (inspect.getdoc(getattr(class_, member)) or "").strip()
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_is_documented(name: str) -> None:
    assert (getattr(metacache, name).__doc__ or "").strip()


def test_importing_metacache_imports_no_plugin() -> None:
    told = "import sys, metacache; print([name for name in sys.modules if name.split('.')[0] in sys.argv[1:]])"
    plugins = ["msgspec", "orjson", "cattrs", "metacache_msgspec", "metacache_orjson", "metacache_attrs"]
    ran = subprocess.run([sys.executable, "-c", told, *plugins], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
