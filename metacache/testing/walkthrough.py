"""Runs the body of a function one statement at a time, and returns each statement with its value.

The lines come from the function's source, and the same source is compiled and run: what is shown is what ran.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Final, final

import attrs

__all__ = ["Step", "walk"]

WIDTH: Final = 74  # columns of a value, without its indentation
MOST_LINES: Final = 3  # of a value; the rest is cut off


@final
@attrs.frozen
class Step:
    """One statement that ran: its source, without indentation, and the `repr` of its value ("" when that is None)."""

    source: str
    value: str

    def lines(self) -> Iterator[str]:
        """Return the lines that an interactive session shows."""
        for number, line in enumerate(self.source.splitlines()):
            yield f"{'...' if number else '>>>'} {line}".rstrip()
        yield from textwrap.wrap(self.value, WIDTH, max_lines=MOST_LINES, placeholder=" ...")


def walk(function: Callable[..., object], scope: dict[str, object]) -> Iterator[Step]:
    """Run the body of *function*, a statement for each step that is taken; a coroutine function runs in a loop.

    *scope* has a value for each parameter. It gets the names that the statements define.
    """
    lines, first = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    body = definition.body[1:] if ast.get_docstring(definition) else definition.body
    texts = [_text(source, statement) for statement in body]
    ast.increment_lineno(definition, first - 1)  # for tracebacks
    scope.update({name: value for name, value in function.__globals__.items() if name not in scope})
    with asyncio.Runner() as runner:
        for statement, text in zip(body, texts, strict=True):
            value = eval(_compiled(statement, inspect.getfile(function)), scope)
            if inspect.iscoroutine(value):
                value = runner.run(value)
            yield Step(text, "" if value is None else repr(value))


def _text(source: str, statement: ast.stmt) -> str:
    lines = source.splitlines()[statement.lineno - 1 : statement.end_lineno]
    return textwrap.dedent("\n".join(lines))


def _compiled(statement: ast.stmt, file: str) -> CodeType:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if isinstance(statement, ast.Expr):
        expression: CodeType = compile(ast.Expression(statement.value), file, "eval", flags)
        return expression
    module: CodeType = compile(ast.Module([statement], []), file, "exec", flags)
    return module
