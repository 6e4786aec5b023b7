"""Represent the shape of a type as a graph, and write its canonical text.

Each class with fields, and each alias, is one definition. Each use of it is a reference, so recursion is finite and a
graph is only as large as its classes. This module does not inspect types; `shapes` builds the graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, final

import attrs

from metacache.interrupts import is_from_handler

__all__ = [
    "ALIAS",
    "REFERENCE",
    "Graph",
    "Shape",
    "UnknownShape",
    "make_union",
    "quoted",
    "reference",
    "unknown",
]

REFERENCE: Final = "ref"
ALIAS: Final = "alias"
UNION: Final = "union"


@final
@attrs.frozen
class Shape:
    """One node: its kind, its labels (field names, literal values, constraints) and its parts."""

    kind: str
    labels: tuple[str, ...] = ()
    parts: tuple[Shape, ...] = ()


@final
class UnknownShape(Exception):
    """A part of the type expression has no shape. The message is a noun phrase that names the part."""


def unknown(error: Exception, what: str) -> Exception:
    """Return the exception to raise if code of a type raised *error*: an UnknownShape that names the part *what*.

    Returns the exception of a signal handler unchanged. Also returns a RecursionError unchanged, because the place
    where the stack ends is not the reason.
    """
    if isinstance(error, RecursionError) or is_from_handler(error):
        return error
    return UnknownShape(f"{what} ({type(error).__name__}: {error})")


def reference(index: int) -> Shape:
    """Return a reference to the definition at *index*."""
    return Shape(REFERENCE, (str(index),))


def _index(shape: Shape) -> int:
    return int(shape.labels[0])


def make_union(members: Iterable[Shape]) -> Shape:
    """Return the union of *members*, flat and without duplicates; of a single member, that member."""
    flat = dict.fromkeys(part for member in members for part in (member.parts if member.kind == UNION else (member,)))
    return next(iter(flat)) if len(flat) == 1 else Shape(UNION, parts=tuple(flat))


def quoted(text: str) -> str:
    """Escape the characters that separate the parts of a shape's text."""
    return re.sub(r"[\\,;()=?]", r"\\\g<0>", text)


def _text(shape: Shape, refer: Callable[[Shape], str]) -> str:
    """Return the text of *shape*. *refer* returns the text of a reference."""
    if shape.kind == REFERENCE:
        return refer(shape)
    if not shape.labels and not shape.parts:
        return shape.kind
    return f"{shape.kind}({','.join(shape.labels)};{','.join(_text(part, refer) for part in shape.parts)})"


def _ordered(shape: Shape, colors: Mapping[int, str]) -> Shape:
    """Return *shape* with the members of each union sorted by their texts, in which a reference is its color.

    typing caches one object for unions that differ only in order, so the order depends on what the process did before.
    """
    if not shape.parts:
        return shape
    parts = [_ordered(part, colors) for part in shape.parts]
    if shape.kind == UNION:
        parts.sort(key=lambda part: _text(part, lambda found: f"#{colors[_index(found)]}"))
    return Shape(shape.kind, shape.labels, tuple(parts))


def _replaced(shape: Shape, replace: Callable[[Shape], Shape]) -> Shape:
    """Return *shape* with each reference replaced by what *replace* returns for it."""
    if shape.kind == REFERENCE:
        return replace(shape)
    if not shape.parts:
        return shape
    parts = tuple(_replaced(part, replace) for part in shape.parts)
    return make_union(parts) if shape.kind == UNION else Shape(shape.kind, shape.labels, parts)


def _references(shape: Shape) -> Iterator[int]:
    if shape.kind == REFERENCE:
        yield _index(shape)
    for part in shape.parts:
        yield from _references(part)


def _unguarded(shape: Shape) -> Iterator[int]:
    """Yield the references that a value of *shape* may be directly, not inside a container or a record."""
    if shape.kind == REFERENCE:
        yield _index(shape)
    elif shape.kind in (UNION, ALIAS, "constrained"):
        for part in shape.parts:
            yield from _unguarded(part)


@final
class Graph:
    """A root shape and its definitions. Raises UnknownShape for an alias that stands for itself."""

    def __init__(self, root: Shape, definitions: Sequence[Shape]) -> None:
        self._definitions = definitions
        if any(self._reaches(index, _unguarded) for index in self._aliases()):
            raise UnknownShape("an alias that stands for itself")
        # An alias is only another name for its shape, so inline it, unless it is recursive.
        self._recursive = {index for index in self._aliases() if self._reaches(index, self._aliases_in)}
        self.root = self._inlined(root)
        self._definitions = [self._inlined(definition) for definition in definitions]

    def _aliases(self) -> list[int]:
        return [index for index, definition in enumerate(self._definitions) if definition.kind == ALIAS]

    def _aliases_in(self, shape: Shape) -> list[int]:
        return [index for index in _references(shape) if self._definitions[index].kind == ALIAS]

    def _reaches(self, start: int, steps: Callable[[Shape], Iterable[int]]) -> bool:
        """Return whether *steps* lead from the definition at *start* back to that definition."""
        seen: set[int] = set()
        pending = [start]
        while pending:
            for index in steps(self._definitions[pending.pop()]):
                if index == start:
                    return True
                if index not in seen:
                    seen.add(index)
                    pending.append(index)
        return False

    def _inlined(self, shape: Shape) -> Shape:
        def inline(found: Shape) -> Shape:
            index = _index(found)
            definition = self._definitions[index]
            if definition.kind != ALIAS or index in self._recursive:
                return found
            return self._inlined(definition.parts[0])

        return _replaced(shape, inline)

    def text(self) -> str:
        """Return the canonical text. Types of equal shape have equal texts, in any order of the walk."""
        colors = self._colors()
        numbers: dict[str, int] = {}
        order: list[int] = []

        def refer(found: Shape) -> str:
            color = colors[_index(found)]
            if color not in numbers:
                numbers[color] = len(numbers)
                order.append(_index(found))
            return f"#{numbers[color]}"

        texts = [_text(_ordered(self.root, colors), refer)]
        for index in order:  # the list grows during the loop
            texts.append(_text(_ordered(self._definitions[index], colors), refer))
        return "|".join(texts)

    def _colors(self) -> dict[int, str]:
        """Return a color for each definition. Two definitions have one color if they are equal at every depth.

        A round distinguishes two definitions if their parts had different colors in the round before. The loop ends
        with the first round that finds no new color.
        """
        colors = dict.fromkeys(self._reachable(), "")
        while True:
            texts = {index: self._colored(index, colors) for index in colors}
            ranks = {text: str(rank) for rank, text in enumerate(sorted(set(texts.values())))}
            if len(ranks) == len(set(colors.values())):
                return colors
            colors = {index: ranks[text] for index, text in texts.items()}

    def _colored(self, index: int, colors: Mapping[int, str]) -> str:
        return _text(_ordered(self._definitions[index], colors), lambda found: f"#{colors[_index(found)]}")

    def _reachable(self) -> list[int]:
        found = dict.fromkeys(_references(self.root))
        pending = list(found)
        while pending:
            new = [index for index in _references(self._definitions[pending.pop()]) if index not in found]
            found.update(dict.fromkeys(new))
            pending.extend(new)
        return list(found)
