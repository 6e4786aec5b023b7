"""The command line as a whole: its table of commands, help, errors, the URL, and exit statuses."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import metacache
from metacache import Client, Connection
from metacache.__main__ import COMMANDS
from metacache.cli.arguments import DEFAULT_URL, parse, url_of
from metacache.cli.main import main
from metacache.cli.text import width_of
from metacache.testing import Memcached
from tests.cli.rig import piped

ROOT = Path(metacache.__file__).parent.parent
PASSWORD = "canary17"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_row_of_the_table_names_a_function_and_an_example(name: str) -> None:
    command = COMMANDS[name]
    module, _, function = command.function.partition(":")
    assert callable(getattr(import_module(module), function))
    program, *arguments = shlex.split(command.example)
    assert program == "metacache"
    assert parse(arguments).command == name


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_into_80_columns_and_has_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*([name] if name else []), "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(width_of, lines)) <= 80
    wanted = f"  {COMMANDS[name].example}" if name else "Exit status: 0 done or found, 1 not found or answered no,"
    assert any(line.startswith(wanted) for line in lines)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.is_program])
def test_an_unknown_option_names_the_help_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, *arguments = shlex.split(COMMANDS[name].example)
    assert main([*arguments, "--colour"]) == 2
    assert f"metacache {name}: unrecognized arguments: --colour; see metacache {name} --help" in capsys.readouterr().err


def test_the_script_and_the_module_run_the_same_function() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"metacache": "metacache.cli.main:main"}
    assert project["optional-dependencies"]["cli"]
    assert import_module("metacache.__main__").main is main


def test_help_and_version_load_no_command() -> None:
    code = "import sys; from metacache.cli.main import main; main(['version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"metacache.cli.items", "metacache.cli.nodes", "metacache.testing.demo", "rich"} & loaded == set()
    assert done.stdout.startswith(f"metacache {metacache.__version__}\n")


# --- the URL ---------------------------------------------------------------------------------------------------------


def test_the_url_is_that_of_the_option_then_of_the_environment() -> None:
    def found(*arguments: str, **environment: str) -> str:
        return url_of(parse([*arguments]), environment)

    assert found("ping") == DEFAULT_URL
    assert found("ping", METACACHE_URL="memcached://a") == "memcached://a"
    assert found("ping", "--url", "memcached://b", METACACHE_URL="memcached://a") == "memcached://b"
    assert found("--url", "memcached://b", "ping", METACACHE_URL="memcached://a") == "memcached://b"
    assert found("--url", "memcached://b", "ping", "--url", "memcached://c") == "memcached://c"


def test_json_may_stand_before_or_behind_the_command() -> None:
    def asked(*arguments: str) -> bool:
        args: argparse.Namespace = parse([*arguments])
        return bool(args.as_json)

    assert (asked("ping"), asked("--json", "ping"), asked("ping", "--json")) == (False, True, True)


# Every one of these has a mistake, and a URL with a password.
URL = f"memcached://root:{PASSWORD}@127.0.0.1:1"
MISTAKES = (
    (URL,),
    (URL, "ping"),
    ("ping", URL),
    ("ping", f"--ur={URL}"),
    ("get", "k", URL),
    ("top", "--interval", URL),
    ("keys", "--limit", URL),
    ("set", "k", "v", "--type", URL),
    ("--url", URL.replace("//root", "//ro/ot"), "ping"),
    ("--url", f"memcached://root:{PASSWORD}/x@h", "ping"),
    ("--url", f"memcached://root:{PASSWORD}@h/?timeout=x", "get", "k"),
    ("--url", f"redis://root:{PASSWORD}@h", "keys"),
    ("--url", f"root:{PASSWORD}@h", "top", "--count", "1"),
    ("--url", f"root:{PASSWORD}", "explain", "k"),
    ("explain", "--move", f"add=root:{PASSWORD}@h"),
    ("explain", "--move", f"add={URL}"),
    ("--url", URL, "explain", "--move", "remove=x"),
    ("--url", URL, "set", "k", "v", "--ttl", "soon"),
)


@pytest.mark.parametrize("arguments", MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_no_error_shows_a_password(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert PASSWORD not in out + err
    assert err.startswith("metacache")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--memory-limit", "0"), "--memory-limit: it is a whole number of at least 1"),
        (("keys", "--limit", "-1"), "--limit: it is a whole number of at least 1"),
        (("top", "--interval", "0"), "--interval: it is from 0.01 to 86400 seconds"),
        (("serve", "--unix", "/tmp/s", "--port", "1"), "leave --host and --port out"),
        (("serve", "--unix", "/tmp/s", "--host", "::1"), "leave --host and --port out"),
    ],
)
def test_an_error_says_what_to_give(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("ping",), ("get", "k"), ("keys",), ("stats",), ("top", "--count", "1"), ("flush", "--yes"), ("explain", "k")],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_no_output_shows_a_password(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    main(["--url", URL, *(["--json"] if as_json else []), *arguments])
    out, err = capsys.readouterr()
    assert "127.0.0.1:1" in out + err
    assert PASSWORD not in out + err
    assert "root" not in out + err


def test_a_key_that_is_not_utf_8_arrives_unchanged(memcached: Memcached) -> None:
    client = Client(Connection(memcached.node))
    client.set(b"caf\xe9", b"v")
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"metacache", b"--url", memcached.url.encode(), b"get", b"caf\xe9"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert rb"caf\xe9" in done.stdout


def test_an_interrupted_command_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("metacache.cli.main.version", interrupt)
    assert main(["version"]) == 130


def test_python_m_metacache_is_the_same_program(memcached: Memcached) -> None:
    status, out, err = piped(memcached.url, "set", "k", "v", "--ttl", "1m")
    assert (status, out, err) == (0, b"stored\n", b"")
    assert piped(memcached.url, "nonsense")[0] == 2
    assert piped(memcached.url, "demo", "--help")[0] == 0
