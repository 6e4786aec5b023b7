"""What a transport refuses to send. Pure."""

from __future__ import annotations

from metacache.errors import ValueTooLargeError
from metacache.transports.base import Batch

__all__ = ["check_bodies", "too_large"]


def check_bodies(batch: Batch, limit: int | None) -> None:
    """Raise ValueTooLargeError, naming the key, for a data block of more than *limit* bytes; None is no limit."""
    if limit is None:
        return
    for given, body in zip(batch.given, batch.bodies or (), strict=False):
        if len(body) > limit:
            raise too_large(len(body), limit).locate(operation=batch.verb.name, key=given)


def too_large(size: int, limit: int) -> ValueTooLargeError:
    """Return the error for a data block of *size* bytes."""
    return ValueTooLargeError(f"the encoded value is {size} bytes, Settings.max_value_size is {limit}")
