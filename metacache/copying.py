"""Refuses copies and pickles of objects that own connections, with one error for all classes."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from metacache.errors import InvalidTypeError

__all__ = ["refuse_copy"]


def refuse_copy(self: object, _: SupportsIndex, /) -> NoReturn:
    """Raise InvalidTypeError. A class assigns this to ``__reduce_ex__``, which `copy` and `pickle` call.

    A copy would share sockets and locks with the original, and close them; a pickle would contain the credentials.
    """
    name = type(self).__name__
    raise InvalidTypeError(
        f"a {name} cannot be copied or pickled, because it holds connections or credentials; threads may share a "
        "client, and each process makes its own with connect(url) or Cluster.from_url(url)"
    )
