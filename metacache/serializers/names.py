"""Find the names of classes and types: for fingerprints, where a name is an identity, and for messages."""

from __future__ import annotations

import enum
import sys
import types
import typing
from typing import Any, Final

import typing_extensions

from metacache.serializers.graphs import UnknownShape

__all__ = ["class_name", "is_standard", "is_type", "library_name", "type_name"]

# Any: a type expression is any object.
_Type = Any

# Classes by the module that documents them. The module that defines a class differs between versions of Python.
_LIBRARY: Final[dict[str, tuple[str, ...]]] = {
    "builtins": ("object", "type", "memoryview", "range", "slice", "property", "complex", "bytearray")
    + ("list", "dict", "set", "frozenset", "tuple", "str", "bytes", "int", "float", "bool")
    + ("BaseException", "Exception", "BaseExceptionGroup", "ExceptionGroup"),
    "array": ("array",),
    "calendar": ("Day", "Month"),
    "collections": ("ChainMap", "Counter", "OrderedDict", "UserDict", "UserList", "UserString", "defaultdict", "deque"),
    "collections.abc": ("AsyncGenerator", "AsyncIterable", "AsyncIterator", "Awaitable", "Callable", "Container")
    + ("Coroutine", "Generator", "Hashable", "ItemsView", "Iterator", "KeysView", "MappingView", "Reversible", "Sized")
    + ("ValuesView",),
    "datetime": ("timezone", "tzinfo"),
    "decimal": ("Context", "DecimalTuple"),
    "email.message": ("EmailMessage", "Message"),
    "enum": ("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"),
    "fractions": ("Fraction",),
    "functools": ("partial",),
    "http": ("HTTPMethod", "HTTPStatus"),
    "http.cookies": ("Morsel", "SimpleCookie"),
    "io": ("BytesIO", "IOBase", "StringIO", "TextIOWrapper"),
    "ipaddress": ("IPv4Address", "IPv4Interface", "IPv4Network", "IPv6Address", "IPv6Interface", "IPv6Network"),
    "msgspec": ("Raw", "UnsetType"),
    "msgspec.msgpack": ("Ext",),
    "numbers": ("Complex", "Integral", "Number", "Rational", "Real"),
    "os": ("PathLike", "stat_result"),
    "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "random": ("Random",),
    "re": ("Match", "Pattern", "RegexFlag"),
    "signal": ("Signals",),
    "socket": ("AddressFamily", "SocketKind", "socket"),
    "string": ("Template",),
    "time": ("struct_time",),
    "types": ("BuiltinFunctionType", "CodeType", "EllipsisType", "FunctionType", "GenericAlias", "MappingProxyType")
    + ("ModuleType", "NotImplementedType", "SimpleNamespace", "TracebackType"),
    "typing": ("BinaryIO", "IO", "SupportsAbs", "SupportsBytes", "SupportsComplex", "SupportsFloat", "SupportsIndex")
    + ("SupportsInt", "SupportsRound", "TextIO"),
    "urllib.parse": ("DefragResult", "DefragResultBytes", "ParseResult", "ParseResultBytes", "SplitResult")
    + ("SplitResultBytes",),
    "uuid": ("SafeUUID",),
    "weakref": ("WeakKeyDictionary", "WeakSet", "WeakValueDictionary", "ref"),
    "xml.etree.ElementTree": ("Element", "ElementTree"),
    "zoneinfo": ("ZoneInfo",),
}


# typing_extensions defines classes that newer Pythons have in the standard library.
_STANDARD: Final = sys.stdlib_module_names | {"typing_extensions"}


def library_name(class_: object) -> str | None:
    """Return the public name of a class of the standard library or of msgspec; None for a class not listed here."""
    for module, names in _LIBRARY.items():
        known = vars(sys.modules[module]) if module in sys.modules else {}
        name = next((name for name in names if known.get(name) is class_), None)
        if name is not None:
            return f"{module}.{name}"
    return None


def is_standard(class_: type) -> bool:
    """Return whether *class_* belongs to the standard library, listed here or not."""
    return str(class_.__module__).partition(".")[0] in _STANDARD and _is_found(class_)


def class_name(class_: type) -> str:
    """Return the module and qualified name of *class_*. Raises UnknownShape if that name does not lead to *class_*."""
    module, name = str(class_.__module__), class_.__qualname__
    if "<locals>" in name:
        raise UnknownShape(f"class {name}, which is local to a function")
    if module == "__main__":
        raise UnknownShape(f"class {name} of __main__, which is a different module in each program")
    if not _is_found(class_):
        raise UnknownShape(f"class {module}.{name}, but that name refers to another object or to none")
    return f"{module}.{name}"


def _is_found(class_: type) -> bool:
    found: Any = sys.modules.get(str(class_.__module__))  # Any: a module, then attributes of any class
    for part in class_.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is class_


# --- in messages ---------------------------------------------------------------------------------------------------

MAX_LENGTH: Final = 200


def type_name(type_: object) -> str:
    """Return the source text of *type_* for messages, at most 200 characters and without metadata."""
    text = _written(type_) if is_type(type_) else _plain(type_)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"


def is_type(type_: _Type) -> bool:
    """Return whether *type_* looks like a type expression. Does not look at its parts."""
    if type_ is None or isinstance(type_, type) or typing.get_origin(type_) is not None:
        return True
    return type(type_).__module__ in ("typing", "typing_extensions")


def _written(type_: _Type) -> str:
    origin: _Type = typing.get_origin(type_)
    arguments = typing.get_args(type_)
    if origin is typing.Annotated:
        return _written(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_written, arguments))
    if origin in (typing.Literal, typing_extensions.Literal):
        return f"Literal[{', '.join(map(_literal, arguments))}]"
    if origin is not None and origin is not type_:  # Generic is its own origin
        star = "*" if getattr(type_, "__unpacked__", False) else ""
        return star + _written(origin) + (f"[{', '.join(map(_written, arguments))}]" if arguments else "")
    if type_ is None or type_ is type(None):
        return "None"
    if type_ is Ellipsis:
        return "..."
    if type(type_) in (list,):  # the parameters of a Callable
        return f"[{', '.join(map(_written, type_))}]"
    return _plain(type_)


def _literal(value: object) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value) if type(value) in (str, bytes, int, bool, type(None)) else type(value).__name__


def _plain(type_: _Type) -> str:
    if isinstance(type_, type):
        if type_.__module__ in ("builtins", "__main__"):
            return type_.__qualname__
        return library_name(type_) or f"{type_.__module__}.{type_.__qualname__}"
    if not is_type(type_):
        return f"an object of class {type(type_).__qualname__}"
    # Type variables, aliases and NewTypes have a name. str() of a special form is its name.
    name: object = getattr(type_, "__name__", None)
    return name if isinstance(name, str) else str(type_).removeprefix("typing.")
