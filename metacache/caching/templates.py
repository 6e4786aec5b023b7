"""Keys of cached functions: a template with a field for each parameter, filled without a look at the signature.

Pure. Two calls with different arguments never get the same key. Values are percent-encoded, and between two fields
stands a character that the encoding never leaves. The exceptions are 42 and "42", a UUID and its text, and members of
one name in two Enum classes of one name: each pair has one key.
"""

from __future__ import annotations

import enum
import inspect
import string
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, final
from urllib.parse import quote, quote_from_bytes

from metacache.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["KeyTemplate"]

# What percent-encoding leaves as it is (RFC 3986, "Unreserved Characters"), and its own sign.
UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "-._~%")
KINDS: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MISSING: Final[Any] = inspect.Parameter.empty  # Any: it stands for a value


class _Field(NamedTuple):
    """One field of a template: where its value is found in a call, and the text before it."""

    before: str
    name: str
    position: int  # -1: by keyword only
    by_name: bool
    default: Any  # Any: the default of a parameter


@final
class KeyTemplate:
    """Makes the key of a call.

    Args:
        template: text with ``{name}`` for parameters of *function*.
        function: the cached function.
        ignore: parameters that the key does not depend on.

    Raises InvalidArgumentError when the template and the parameters do not fit.
    """

    __slots__ = ("_after", "_count", "_fields", "_function", "_names", "_signature")

    def __init__(self, template: str, function: Callable[..., object], ignore: Collection[str]) -> None:
        if isinstance(ignore, str):
            raise InvalidTypeError("ignore is a collection of names, not one str; write (name,)")
        self._function = function
        self._signature = _signature(function)
        parameters = self._signature.parameters
        pieces = _pieces(template)
        _check_names([name for _, name in pieces if name is not None], parameters, ignore)
        _check_separators(pieces)
        positions = {name: index for index, name in enumerate(parameters)}
        self._fields = tuple(
            _field(before, parameters[name], positions[name]) for before, name in pieces if name is not None
        )
        self._after = "".join(before for before, name in pieces if name is None)
        self._names = frozenset(
            name for name, each in parameters.items() if each.kind is not inspect.Parameter.POSITIONAL_ONLY
        )
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._count = sum(each.kind in by_position for each in parameters.values())

    def fill(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """Return the key of a call. Raises InvalidTypeError for a value that no key can hold.

        Raises TypeError, as the function would, for arguments that do not fit its parameters; but not when a parameter
        that the key does not depend on is missing.
        """
        if len(args) > self._count or (kwargs and not self._names.issuperset(kwargs)):
            self._signature.bind(*args, **kwargs)  # raises, unless the function has * or ** parameters
        parts: list[str] = []
        for before, name, index, by_name, default in self._fields:
            value: Any  # Any: an argument of a call
            if 0 <= index < len(args):
                if kwargs and by_name and name in kwargs:
                    self._signature.bind(*args, **kwargs)  # raises: it was given twice
                value = args[index]
            elif by_name and name in kwargs:
                value = kwargs[name]
            else:
                value = default
            if value is _MISSING:
                self._signature.bind(*args, **kwargs)  # raises: it is missing
            # A str of letters and digits, and an int, are the usual values.
            if type(value) is str and value.isalnum() and value.isascii():
                parts += (before, value)
            elif type(value) is int:
                parts += (before, str(value))
            else:
                parts += (before, _encoded(name, value))
        parts.append(self._after)
        return "".join(parts)


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError as error:  # some built-in functions and classes have none
        raise InvalidTypeError(
            f"a key template needs the parameters of the function: {error}; give key a function"
        ) from None


def _field(before: str, parameter: inspect.Parameter, index: int) -> _Field:
    is_keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    by_name = parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    return _Field(before, parameter.name, -1 if is_keyword_only else index, by_name, parameter.default)


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """Return the template as pairs of a text and the field behind it; None behind the last text."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidArgumentError(f"the key template is not a format string: {error}") from None
    pieces: list[tuple[str, str | None]] = []
    text = ""
    for before, name, spec, conversion in parsed:
        text += before
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise InvalidArgumentError("a field of a key template is {name}, the bare name of a parameter")
        pieces.append((text, name))
        text = ""
    return [*pieces, (text, None)]


def _check_names(named: list[str], parameters: Mapping[str, inspect.Parameter], ignore: Collection[str]) -> None:
    unknown = sorted({*named, *ignore} - set(parameters))
    if unknown:
        raise InvalidArgumentError(
            f"the function has no parameter {', '.join(unknown)}; it has {', '.join(parameters)}"
        )
    twice = sorted({name for name in named if named.count(name) > 1 or name in ignore})
    if twice:
        raise InvalidArgumentError(f"name each parameter once, in the key template or in ignore: {', '.join(twice)}")
    missing = [name for name in parameters if name not in named and name not in ignore]
    if missing:
        raise InvalidArgumentError(
            f"calls that differ in {', '.join(missing)} would share a key: name it in the template, or in ignore"
        )
    starred = [name for name in named if parameters[name].kind in KINDS]
    if starred:
        raise InvalidArgumentError(f"a key cannot hold the arguments of *{starred[0]}; give key a function instead")


def _check_separators(pieces: list[tuple[str, str | None]]) -> None:
    for before, name in pieces[1:]:
        if name is not None and UNRESERVED.issuperset(before):
            raise InvalidArgumentError(
                f"between {{{name}}} and the field before it stands no separator: write a ':' or a '/' there"
            )


def _encoded(name: str, value: object) -> str:
    """Return *value* as text that contains no separator. No two values of different kinds have the same text."""
    if isinstance(value, enum.Enum):
        # The encoding of a text leaves no "%." and no "%=". A combination of flags may have no name.
        member = f"%.{quote(value.name, safe='')}" if value.name else f"%={quote(repr(value.value), safe='')}"
        return f"%E{quote(type(value).__qualname__, safe='')}{member}"
    if value is None or isinstance(value, bool):
        return {None: "%N", True: "%T", False: "%F"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, bytes):
        return f"%B{quote_from_bytes(bytes(value), safe='')}"
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            return quote(text, safe="")
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"{name} has a lone surrogate, which no key can hold") from None
    import uuid  # late: it starts slowly, and few templates have one

    if isinstance(value, uuid.UUID):
        return str(uuid.UUID(int=value.int))
    raise InvalidTypeError(
        f"{name} is a str, int, bool, None, bytes, UUID or Enum in a key template, not {type(value).__name__};"
        " give key a function for other types"
    )
