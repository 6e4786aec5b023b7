"""`Cached` and `AsyncCached`: a function whose results are cached, under a key made of each call's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, final, overload

from metacache.caching.templates import KeyTemplate
from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.marks import override
from metacache.operations.results import DeleteResult
from metacache.protocol.keys import Key

__all__ = ["AsyncCached", "Cached", "MakeKey", "key_function", "refuse_function"]

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")

MakeKey: TypeAlias = Callable[[tuple[object, ...], dict[str, object]], Key]
"""Makes the key of a call from its positional and keyword arguments."""


def key_function(key: str | Callable[..., Key], function: Callable[..., object], ignore: Collection[str]) -> MakeKey:
    """Return what makes the keys of *function*: a template, or the caller's own function *key*.

    Raises InvalidArgumentError when a template does not fit the parameters, and InvalidTypeError.
    """
    if isinstance(key, str):
        return KeyTemplate(key, function, ignore).fill
    if not callable(key):
        raise InvalidTypeError(f"key is a template or a function of the arguments, not {type(key).__name__}")
    if ignore:
        raise InvalidArgumentError("ignore is for a key template; a key function ignores arguments by itself")

    def make(args: tuple[object, ...], kwargs: dict[str, object]) -> Key:
        return key(*args, **kwargs)

    return make


def refuse_function(function: object, *, is_async: bool) -> None:
    """Raise InvalidTypeError for a function whose results cannot be cached."""
    kind = type(function)
    if kind in (staticmethod, classmethod) or not callable(function):
        hint = "; write @staticmethod or @classmethod above cached" if kind in (staticmethod, classmethod) else ""
        raise InvalidTypeError(f"cached decorates a function, not {kind.__name__}{hint}")
    targets = (inspect.unwrap(function), inspect.getattr_static(function, "__call__"))  # the latter of an object
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in targets):
        raise InvalidTypeError("cached cannot decorate a generator: reading its values consumes them")
    if not is_async and any(map(inspect.iscoroutinefunction, targets)):
        raise InvalidTypeError("cached of a Client cannot decorate an async function; use an AsyncClient")


@final
class Cached(Generic[P, T]):
    """A function whose results a `Client` caches. `Client.cached` makes it.

    A call returns the cached result for its arguments, or computes and stores it: see `Client.get_or_compute`.
    It can be a method, or a static method that is called through its class. Of a class method only plain calls work:
    `refresh`, `delete` and `key_for` would not know the class.

    Attributes:
        __wrapped__: the function itself; calling it uses no cache.
    """

    __wrapped__: Callable[P, T]

    def __init__(
        self,
        function: Callable[P, T],
        make_key: MakeKey,
        fetch: Callable[[Key, Callable[[], T]], T],
        refresh: Callable[[Key, Callable[[], T]], T],
        delete: Callable[[Key], DeleteResult],
        bound: tuple[object, ...] = (),
    ) -> None:
        update_wrapper(self, function)
        self._function: Callable[..., T] = function
        self._make_key = make_key
        self._fetch = fetch
        self._refresh = refresh
        self._delete = delete
        self._bound = bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the cached result of the call, or compute and store it."""
        given = self._bound + args if self._bound else args
        return self._fetch(self._make_key(given, kwargs), partial(self._function, *given, **kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute the result of the call now, store it and return it.

        Computations that began before this call are not stored any more. If another caller begins one at the same
        time, wait for its value instead, as in `get_or_compute`. A value that was set or deleted meanwhile is not
        replaced. Raises what the function raises; the old value stays then, and the next reader computes.
        """
        given = self._bound + args
        return self._refresh(self._make_key(given, kwargs), partial(self._function, *given, **kwargs))

    def delete(self, *args: P.args, **kwargs: P.kwargs) -> DeleteResult:
        """Delete the cached result of the call."""
        return self._delete(self._make_key(self._bound + args, kwargs))

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of the call, without the client's prefix."""
        return self._make_key(self._bound + args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Cached[P, T]: ...
    @overload
    def __get__(self: Cached[Concatenate[S, Q], T], instance: S, owner: type, /) -> Cached[Q, T]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:  # Any: the overloads say which
        """Return the cached method of *instance*."""
        if instance is None:
            return self
        bound = (*self._bound, instance)
        return Cached(self._function, self._make_key, self._fetch, self._refresh, self._delete, bound)

    @override
    def __repr__(self) -> str:
        return f"<Cached {getattr(self._function, '__qualname__', type(self._function).__name__)}>"


@final
class AsyncCached(Generic[P, T]):
    """A function whose results an `AsyncClient` caches. `AsyncClient.cached` makes it.

    A call returns the cached result for its arguments, or computes and stores it: see `AsyncClient.get_or_compute`.
    It can be a method, or a static method that is called through its class. Of a class method only plain calls work:
    `refresh`, `delete` and `key_for` would not know the class.

    Attributes:
        __wrapped__: the function itself; calling it uses no cache.
    """

    __wrapped__: Callable[P, Awaitable[T]]

    def __init__(
        self,
        function: Callable[P, Awaitable[T]],
        make_key: MakeKey,
        fetch: Callable[[Key, Callable[[], Awaitable[T]]], Awaitable[T]],
        refresh: Callable[[Key, Callable[[], Awaitable[T]]], Awaitable[T]],
        delete: Callable[[Key], Awaitable[DeleteResult]],
        bound: tuple[object, ...] = (),
    ) -> None:
        update_wrapper(self, function)
        self._function: Callable[..., Awaitable[T]] = function
        self._make_key = make_key
        self._fetch = fetch
        self._refresh = refresh
        self._delete = delete
        self._bound = bound

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the cached result of the call, or compute and store it."""
        given = self._bound + args if self._bound else args
        return await self._fetch(self._make_key(given, kwargs), partial(self._function, *given, **kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute the result of the call now, store it and return it.

        Computations that began before this call are not stored any more. If another caller begins one at the same
        time, wait for its value instead, as in `get_or_compute`. A value that was set or deleted meanwhile is not
        replaced. Raises what the function raises; the old value stays then, and the next reader computes.
        """
        given = self._bound + args
        return await self._refresh(self._make_key(given, kwargs), partial(self._function, *given, **kwargs))

    async def delete(self, *args: P.args, **kwargs: P.kwargs) -> DeleteResult:
        """Delete the cached result of the call."""
        return await self._delete(self._make_key(self._bound + args, kwargs))

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of the call, without the client's prefix."""
        return self._make_key(self._bound + args, kwargs)

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncCached[P, T]: ...
    @overload
    def __get__(self: AsyncCached[Concatenate[S, Q], T], instance: S, owner: type, /) -> AsyncCached[Q, T]: ...
    def __get__(self, instance: Any, owner: type, /) -> Any:  # Any: the overloads say which
        """Return the cached method of *instance*."""
        if instance is None:
            return self
        bound = (*self._bound, instance)
        return AsyncCached(self._function, self._make_key, self._fetch, self._refresh, self._delete, bound)

    @override
    def __repr__(self) -> str:
        return f"<AsyncCached {getattr(self._function, '__qualname__', type(self._function).__name__)}>"
