"""Running the examples of a page, in one module and on private servers, and writing them down for a type checker."""

from __future__ import annotations

import doctest
import io
import logging
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from types import ModuleType
from typing import Final, final

import pytest

from metacache import Client, Cluster, Connection, Pool
from metacache.testing import Memcached
from tests.docs.pages import Block, Page

__all__ = ["ADDRESSES", "ExampleFailed", "Session", "script"]

OPTIONS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# The addresses that a page may use. Those of a row are started together, and their order as text is kept: a cluster
# sorts its nodes by name, and without a name a node is called by its address.
ADDRESSES: Final[Sequence[tuple[tuple[str, ...], Callable[[], Memcached]]]] = (
    (("localhost:11211",), Memcached),
    (("cache-1:11211", "cache-2:11211", "cache-3:11211"), Memcached),
    (("/run/memcached.sock",), lambda: Memcached(unix=True)),
)


class ExampleFailed(AssertionError):
    """An example did something else than what its page shows."""


@final
class Session:
    """The examples of one page, run from top to bottom; each is run once.

    Not safe for threads: while an example runs, `sys.modules["__main__"]` is the module of the page.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._examples = page.examples
        self._module = ModuleType("__main__")
        self._servers: list[Memcached] = []
        self._private: dict[str, str] = {}
        self._done = 0
        self._failure = ""

    def run(self, number: int) -> None:
        """Run the examples up to *number* (from 0) that did not run yet. Raises `ExampleFailed`."""
        while self._done <= number:
            if self._failure:
                raise ExampleFailed(f"not run, because an example above failed: {self._failure}")
            block = self._examples[self._done]
            self._done += 1
            try:
                self._run(block)
            except ExampleFailed:
                self._failure = f"{self._page.name}:{block.line}"
                raise

    def close(self) -> None:
        """Close what the examples left open, then the servers of the addresses; reset the level of the loggers."""
        names = list(vars(self._module).values())
        for kind in (Client, Cluster, Pool, Connection, Memcached):
            for value in names:
                if isinstance(value, kind):
                    value.close()
        for server in self._servers:
            server.close()
        logging.getLogger("metacache").setLevel(logging.NOTSET)

    def _run(self, block: Block) -> None:
        text = self._with_private_servers(block.text)
        with _main(self._module), _warnings() as logged:
            if block.is_session:
                self._run_session(text, block)
            else:
                self._run_program(text, block)
        quoted = {line.strip() for line in self._page.text.splitlines()}
        if unquoted := [line for line in logged if line not in quoted]:
            raise ExampleFailed(f"{self._page.name}:{block.line} logs what the page does not quote: {unquoted}")

    def _run_session(self, text: str, block: Block) -> None:
        session = doctest.DocTestParser().get_doctest(text, {}, self._page.name, self._page.name, block.line - 1)
        session.globs = vars(self._module)
        report: list[str] = []
        result = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(
            session, out=report.append, clear_globs=False
        )
        if result.failed:
            raise ExampleFailed("".join(report))

    def _run_program(self, text: str, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + text, self._page.name, "exec", dont_inherit=True)
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                exec(code, vars(self._module))
        except Exception as error:
            raise ExampleFailed("".join(traceback.format_exception(error))) from error
        expected = self._with_private_servers(self._text_below(block)) if printed.getvalue() else ""
        if not doctest.OutputChecker().check_output(expected, printed.getvalue(), OPTIONS):
            where = f"{self._page.name}:{block.line}"
            raise ExampleFailed(f"{where} prints\n{printed.getvalue()}\nThe page shows\n{expected}")

    def _text_below(self, block: Block) -> str:
        """Return the text of the next block, if that is what a program prints."""
        following = next((other for other in self._page.blocks if other.line > block.line), None)
        return following.text if following is not None and following.language == "text" else ""

    def _with_private_servers(self, text: str) -> str:
        for addresses, make in ADDRESSES:
            if any(address in text for address in addresses) and addresses[0] not in self._private:
                self._servers += (started := [make() for _ in addresses])
                found = sorted(str(server.node.address).removeprefix("unix:") for server in started)
                self._private |= dict(zip(addresses, found, strict=True))
        for address, private in self._private.items():
            text = text.replace(address, private)
        return text


@contextmanager
def _main(module: ModuleType) -> Generator[None]:
    """Let *module* be `__main__`, where typing and pickle look for the names of its classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", module)
        yield


@contextmanager
def _warnings() -> Generator[list[str]]:
    """Collect the warnings that are logged, which a reader without a logging configuration sees on stderr."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    # method-assign: a class that inherits from Handler would only repeat this line.
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    with ExitStack() as stack:
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        yield messages


def script(page: Page) -> str:
    """Return the code of all examples as one module, in which each line has the number that it has on the page."""
    lines: dict[int, str] = {}
    for block in page.examples:
        for number, line in enumerate(_code(block).splitlines(), block.line):
            lines[number] = line
    return "".join(f"{lines.get(number, '')}\n" for number in range(1, max(lines, default=0) + 1))


def _code(block: Block) -> str:
    """Return the statements of *block*, each on the line where it is; output is blank."""
    if not block.is_session:
        return block.text
    lines = [""] * block.text.count("\n")
    for example in doctest.DocTestParser().get_examples(block.text):
        source = example.source.splitlines()
        lines[example.lineno : example.lineno + len(source)] = source
    return "".join(f"{line}\n" for line in lines)
