"""The commands for one item: get, set, delete, touch, exists, inspect."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs

from metacache.cli.given import json_bytes, key_of, raw_of, seconds_of
from metacache.cli.item_view import duration, item_json, item_lines, state_of
from metacache.cli.layout import Line, fields
from metacache.cli.peeking import peek
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.cli.values import read_value
from metacache.cli.written import written_by
from metacache.client.blocking import Client
from metacache.errors import InvalidArgumentError
from metacache.operations.results import Metadata
from metacache.protocol.keys import Key
from metacache.serializers import load_serializer
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.compression import installed_compressor
from metacache.serializers.interfaces import Serializer

__all__ = ["delete", "exists", "get", "inspect", "set_", "touch"]


def _answer(session: Session, key: Key, *, was_done: bool, word: str, otherwise: str) -> Status:
    """Print one word about *key*; return the status."""
    if session.as_json:
        session.output.json({**json_bytes("key", raw_of(key)), "result": word if was_done else otherwise})
    else:
        line: Line = ((word, "good") if was_done else (otherwise, "bad"),)
        session.output.lines([line])
    return Status.DONE if was_done else Status.NO


def get(session: Session, args: argparse.Namespace) -> Status:
    """Show an item of any writer; ``--raw`` writes the bytes of its value."""
    key = key_of(args.key, is_base64=args.base64)
    if args.raw and session.output.is_terminal:
        raise InvalidArgumentError("--raw writes bytes that may control a terminal: redirect the output")
    with session.cluster() as cluster:
        item = peek(cluster, key, with_value=True)
        owner = cluster.router.pick(raw_of(key)).name
    if item is None:
        return _answer(session, key, was_done=False, word="found", otherwise="not found")
    written = written_by(item.client_flags)
    value = None if item.is_placeholder else read_value(written, item.data, installed_compressor)
    if args.raw:
        session.output.raw(b"" if value is None else value.data)
    elif session.as_json:
        session.output.json(item_json(raw_of(key), owner, item, written, value))
    else:
        charset = session.output.charset
        session.output.lines(item_lines(raw_of(key), owner, item, written, value, charset, show_all=args.all))
    return Status.NO if value is None else Status.DONE


def exists(session: Session, args: argparse.Namespace) -> Status:
    """Say whether there is an item of any writer that is not a lease placeholder."""
    key = key_of(args.key, is_base64=args.base64)
    with session.cluster() as cluster:
        item = peek(cluster, key, with_value=False)
    state = "not found" if item is None else state_of(item)
    is_there = item is not None and not item.is_placeholder
    return _answer(session, key, was_done=is_there, word=state, otherwise=state)


def inspect(session: Session, args: argparse.Namespace) -> Status:
    """Show the metadata that ``me`` returns, which is not a read."""
    with session.cluster() as cluster:
        found = cluster.client().inspect(args.key)
    if found is None:
        return _answer(session, args.key, was_done=False, word="found", otherwise="not found")
    if session.as_json:
        session.output.json({**json_bytes("key", raw_of(key_of(args.key, is_base64=False))), **attrs.asdict(found)})
    else:
        session.output.lines(_metadata(found))
    return Status.DONE


def _metadata(found: Metadata) -> list[Line]:
    return list(
        fields(
            [
                ("last used", (f"{duration(found.idle_seconds)} ago", "")),
                ("read before", ("yes" if found.fetched_before else "no", "")),
                ("cas", (str(found.cas), "")),
                ("slab class", (str(found.slab_class), "")),
                ("size in server", (f"{found.item_size:,} bytes, with header and key", "")),
            ]
        )
    )


# --- writing ---------------------------------------------------------------------------------------------------------


def _json_serializer() -> Serializer[Any]:  # Any: every value that JSON has
    # Without a fingerprint, so that a json client of every type reads the value if it decodes.
    return load_serializer("json", Any, fingerprint="off")


@final
@attrs.frozen
class _Type:
    """A value of ``--type``: the serializer, the function that makes a value of the given bytes, and what it takes."""

    serializer: Callable[[], Serializer[Any]]  # Any: each serializer has its own type of values
    value: Callable[[bytes], object]
    wanted: str


_TYPES: Final[Mapping[str, _Type]] = {
    "str": _Type(StrSerializer, bytes.decode, "text in UTF-8; --type bytes takes any bytes"),
    "bytes": _Type(BytesSerializer, bytes, "bytes"),
    "int": _Type(IntSerializer, int, "a whole number"),
    "json": _Type(_json_serializer, json.loads, "JSON"),
}


def set_(session: Session, args: argparse.Namespace) -> Status:
    """Store a value from the argument, a file or standard input."""
    key = key_of(args.key, is_base64=args.base64)
    ttl = seconds_of(args.ttl)
    data = _given(session, args)
    chosen = _TYPES[args.type]
    try:
        value = chosen.value(data)
    except (ValueError, RecursionError):
        raise InvalidArgumentError(f"the value is not {chosen.wanted}") from None
    with session.cluster() as cluster:
        stored = Client(cluster, chosen.serializer()).set(key, value, ttl=ttl)
    return _answer(session, key, was_done=bool(stored), word="stored", otherwise=stored.value)


def _given(session: Session, args: argparse.Namespace) -> bytes:
    """Return the value's bytes. A line end that a shell or an editor put at the end is part of it."""
    if (args.value is None) == (args.file is None):
        raise InvalidArgumentError("give one value: as an argument, or with --file PATH (- is standard input)")
    if args.value is not None:
        return os.fsencode(args.value)
    if args.file == "-":
        return session.stdin.buffer.read()
    try:
        return Path(args.file).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"the file cannot be read: {error.strerror}") from None


def delete(session: Session, args: argparse.Namespace) -> Status:
    """Delete an item."""
    key = key_of(args.key, is_base64=args.base64)
    with session.cluster() as cluster:
        deleted = cluster.client().delete(key)
    return _answer(session, key, was_done=bool(deleted), word="deleted", otherwise="not found")


def touch(session: Session, args: argparse.Namespace) -> Status:
    """Set the TTL of an item."""
    key = key_of(args.key, is_base64=args.base64)
    ttl = seconds_of(args.ttl)
    with session.cluster() as cluster:
        touched = cluster.client().touch(key, ttl)
    return _answer(session, key, was_done=touched, word="touched", otherwise="not found")
