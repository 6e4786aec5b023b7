"""Tests of the pages: each Python example runs and is type-checked.

The pages are docs/**/*.md and the README files of the project, its plugins and its examples.

How to write an example
-----------------------

A page is found by its name; nothing has to be registered. The examples of a page run from top to bottom in one module,
which stands for the reader's `__main__`. Each example is a test of its own: `docs/x.md:12` is the example whose first
line is line 12. A test runs the examples above it first, if they have not run yet.

An example is a fenced block of one of two forms. Both are marked `python`:

- *A session* begins with `>>> `. What is printed below each statement is compared with what Python prints. `...` stands
  for any text, and white space may differ, so a long result may be wrapped. A traceback is written in two lines:
  `Traceback (most recent call last):`, then the last line, such as `metacache.errors.ConflictError: ...`.
- *A program* has no prompts. Use it for what a reader copies into a file. What it prints must be the text of the next
  block, which is marked `text`; a program that prints nothing has no such block. Use `assert` where you can.

Names. A page starts with no names: import and define what you use, and show it to the reader. A name that is defined on
the page stays. Nothing is taken over from another page. Close nothing for the sake of the tests: after the last
example the tests close the clients, transports and servers that are left in the page's names.

Servers. These addresses are those of private, empty memcached servers, which the tests start for each page:
`localhost:11211`, `cache-1:11211`, `cache-2:11211`, `cache-3:11211`, and the Unix socket `/run/memcached.sock`. Write
them as a reader would, for example `connect("memcached://localhost:11211", str)`. The tests replace the text of the
address, in the code and in its expected output. The order of `cache-1`, `cache-2` and `cache-3` is
kept. Which node owns a key depends on the node's name, so give names (`Node("cache-1:11211", name="cache-a")`) where
the output depends on it. Nothing listens at `127.0.0.1:1`. A page that stops or freezes a server starts it in view of
the reader, with `metacache.testing.Memcached`. Move time with `metacache.testing.FakeServer(clock=...)`; do not sleep.

Types. mypy checks all examples of a page as one module, with the strict settings of mypy.ini. Write a line that
the type checker must reject in one of two ways; the test fails if mypy accepts it:

- `users.set("ada", 36)  # error: incompatible type "int"` where the page is about types. The text behind `# error:`
  is a part of mypy's message.
- `users.set("ada", 36)  # type: ignore[arg-type]` everywhere else.

Log lines. A warning that an example logs must be quoted on its page, word for word.

Whole files. Do not copy a file of the repository into a page: use `literalinclude`, and test the file where it is.

Other blocks. Mark each with its language: `console` for shell commands, `text` for output and diagrams, `toml`, `ini`,
`yaml`, `json`. In `console` blocks and in `` `code` ``, each `make X` must be a target of the Makefile, and each
`python -m metacache X` must be a command.
"""
