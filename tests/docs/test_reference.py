"""The reference names all that the code has, and nothing else: public names, settings, errors, loggers, commands."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import attrs
import pytest

import metacache
import pytest_metacache
from metacache import (
    AsyncClient,
    Client,
    ClientOptions,
    ClientStatistics,
    Cluster,
    InvalidArgumentError,
    NodeState,
    Settings,
    errors,
    serializers,
    testing,
)
from metacache.__main__ import COMMANDS
from metacache.cli.statuses import Status
from metacache.operations.options import Options, ViewOptions
from metacache.testing import FakeTransport
from tests.docs.pages import PAGES, ROOT, Page

CODE: Final = ROOT / "metacache"


def page(name: str) -> Page:
    return next(page for page in PAGES if page.name == f"docs/{name}.md")


CLIENTS: Final = page("reference/clients")
SETTINGS: Final = page("reference/settings")
URLS: Final = page("reference/urls")
ERRORS: Final = page("reference/errors")
FLAGS: Final = page("reference/flags")


def bare(cell: str) -> str:
    return cell.strip("`")


# --- the API ---------------------------------------------------------------------------------------------------------


def documented() -> Mapping[str, Set[str]]:
    """Return the names that the pages of the API document, by module."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for api in PAGES:
        module = ""
        if api.name.startswith("docs/reference/api/"):
            for directive, name in re.findall(r"^\.\. (?:py:)?(\w+):: (\S+)$", api.text, re.MULTILINE):
                if directive == "currentmodule":
                    module = name
                elif "." not in name:  # else a class of another module, beside the name under which it is public
                    names[module].add(name)
    return names


def test_every_public_name_has_its_entry_and_every_entry_is_a_public_name() -> None:
    found = documented()
    assert found.keys() == {"metacache", "metacache.serializers", "metacache.testing", "pytest_metacache"}
    assert found["pytest_metacache"] == set(pytest_metacache.__all__)
    assert found["metacache"] == set(metacache.__all__)
    assert found["metacache.testing"] == set(testing.__all__)
    assert found["metacache.serializers"] == set(serializers.__all__) - set(metacache.__all__)


@pytest.mark.usefixtures("own_time_limit")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    builder = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "dummy"]
    command = [*builder, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- clients ---------------------------------------------------------------------------------------------------------


def methods(client: type) -> set[str]:
    return {name for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_table_of_methods_has_every_method(client: type) -> None:
    named = {method for cell in CLIENTS.table("method") for method in re.findall(r"`(\w+)\(", cell)}
    other_close = {"aclose"} if client is Client else {"close"}
    assert named - other_close == methods(client)
    properties = {name for name in dir(client) if not name.startswith("_")} - methods(client)
    assert all(f"`{name}`" in CLIENTS.text for name in properties)


def test_the_table_of_counts_has_every_count() -> None:
    assert {bare(name) for name in CLIENTS.table("count")} == set(attrs.fields_dict(ClientStatistics))


# --- options, settings, URLs -----------------------------------------------------------------------------------------


def test_the_table_of_options_has_every_option_and_its_default() -> None:
    shown = {bare(name): ast.literal_eval(bare(default)) for name, (default, _) in SETTINGS.table("option").items()}
    assert shown.keys() == ClientOptions.__annotations__.keys()
    assert shown == attrs.asdict(Options(prefix=""))


def test_the_options_that_a_view_may_change_are_named() -> None:
    expected = set(ViewOptions.__annotations__)
    sentence = re.findall(r"`with_options` takes ([^.]*)\.", " ".join(SETTINGS.text.split()))
    assert set(re.findall(r"`(\w+)`", sentence[0])) == expected
    row = next(cells[1] for method, cells in CLIENTS.table("method").items() if "with_options" in method)
    assert set(re.findall(r"`(\w+)`", row)) == expected


def test_the_table_of_on_error_has_every_method_that_can_fail() -> None:
    rows = re.findall(
        r"^\| (`.*?) \| .*\|$", SETTINGS.text.partition("### on_error")[2].partition("##")[0], re.MULTILINE
    )
    named = [method for row in rows for method in re.findall(r"`(\w+)`", row)]
    assert len(named) == len(set(named))
    assert set(named) == methods(Client) - {"with_options", "close"}


def test_the_table_of_settings_has_every_setting_and_its_default() -> None:
    shown = {bare(name): ast.literal_eval(default) for name, (default, _) in SETTINGS.table("setting").items()}
    assert shown == {field.name: getattr(Settings(), field.name) for field in attrs.fields(Settings)}


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Settings)])
def test_the_table_of_urls_has_a_setting_if_a_url_may_have_it(field: str) -> None:
    default = getattr(Settings(), field)
    url = f"memcached://cache-1/?{field}={1 if default is None else default}"
    if f"`{field}`" in URLS.table("key"):
        Cluster.from_url(url).close()
    else:
        assert f"`{field}`" in URLS.prose.partition("All settings but")[2].partition("may be")[0]
        with pytest.raises(InvalidArgumentError, match="unknown key"):
            Cluster.from_url(url)


def test_the_table_of_urls_has_weights_and_settings_only() -> None:
    assert {bare(name) for name in URLS.table("key")} - attrs.fields_dict(Settings).keys() == {"weights"}


# --- serializers and client flags ------------------------------------------------------------------------------------


def test_the_table_of_serializers_has_every_one_with_its_wire_id_and_distribution() -> None:
    table = page("reference/serializers").table("name")
    shown = {bare(name): (int(cells[0]), cells[-1]) for name, cells in table.items()}
    plugins = entry_points(group="metacache.serializers")
    found = {plugin.name: (plugin.load().wire_id, plugin.dist.name if plugin.dist else "") for plugin in plugins}
    assert shown == found


def test_the_included_table_of_wire_ids_has_every_serializer() -> None:
    included = re.findall(r"^```\{include\} (\S+)$", FLAGS.text, re.MULTILINE)
    assert len(included) == 1
    ids = Page("", (ROOT / "docs" / "reference" / included[0]).read_text()).table("wire id")
    shown = {bare(cells[0]): (int(number), cells[-1]) for number, cells in ids.items() if cells[0]}
    serializers_page = page("reference/serializers").table("name")
    assert shown == {bare(name): (int(cells[0]), cells[-1]) for name, cells in serializers_page.items()}


def test_the_table_of_causes_has_every_cause() -> None:
    assert {bare(name) for name in FLAGS.table("cause")} == set(Client(FakeTransport()).undecodable)


# --- errors ----------------------------------------------------------------------------------------------------------


def tree() -> Iterator[tuple[int, str, str]]:
    """Yield each error of the tree: its depth, its name, the built-in class in brackets behind it."""
    text = next(block.text for block in ERRORS.blocks if block.text.startswith("MetacacheError\n"))
    for match in re.finditer(r"^([│ ]*[├└]─ )?(\w+)(?: \((\w+)\))?( .*)?$", text, re.MULTILINE):
        yield len(match[1] or ""), match[2], match[3] or "Exception"


def test_the_tree_of_errors_has_every_error_below_its_base_class() -> None:
    path: list[tuple[int, type]] = []
    found = list(tree())
    assert sorted(name for _, name, _ in found) == sorted(errors.__all__)
    for depth, name, builtin in found:
        error: type = getattr(errors, name)
        while path and path[-1][0] >= depth:
            path.pop()
        assert issubclass(error, getattr(builtins, builtin))
        assert error.__bases__[0] is (path[-1][1] if path else Exception)
        path.append((depth, error))


def test_the_table_of_attributes_has_those_of_every_error() -> None:
    made = [metacache.MetacacheError(), metacache.TransportError(), metacache.BatchError()]
    attributes = {name for error in made for name in (*vars(error), "is_local") if hasattr(error, name)}
    shown = {name for cell in ERRORS.table("attribute") for name in re.findall(r"`(\w+)`", cell)}
    assert shown == attributes - {"message"}


def test_the_table_of_failures_has_every_state_of_a_node_and_no_other() -> None:
    rows = [row for each in PAGES for row in each.table("state of the node")]
    states = {state for row in rows for state in row.split(", ")}
    assert states - {"any"} == {state.value for state in NodeState}


# --- log lines -------------------------------------------------------------------------------------------------------


# A variable, or the call that `logs` gives a module for its only log line.
LOGGER: Final = r"(?:logger|logger_of\(\"[\w.]+\"\))"


def logged() -> Iterator[tuple[str, str]]:
    """Yield each logger of the code with each level that its module logs at."""
    levels = {"exception": "ERROR", "warning": "WARNING", "info": "INFO", "debug": "DEBUG", "error": "ERROR"}
    for path in CODE.rglob("*.py"):
        text = path.read_text()
        for name in re.findall(r"(?:getLogger|logger_of)\((\".*?\")\)", text):
            used = {levels[call] for call in re.findall(rf"\b{LOGGER}\.({'|'.join(levels)})\(", text)}
            used |= set(re.findall(r"\blogging\.([A-Z]+)\b", text))
            assert used, f"{path} makes a logger and this test sees no use of it"
            yield from ((ast.literal_eval(name), level) for level in used)


def test_the_table_of_loggers_has_every_logger_with_its_levels() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([A-Z]+) \|", page("reference/logging").text, re.MULTILINE)
    assert set(rows) == set(logged())


def test_every_log_line_is_logged_through_a_logger_of_the_table() -> None:
    for path in CODE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"\blogging\.(debug|info|warning|error|exception|critical|log)\(", text), path
        assert "logger." not in text or "getLogger(" in text or "logger_of(" in text, path


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_table_of_commands_has_every_command() -> None:
    table = page("reference/command-line").table("command")
    assert {bare(row) for row in table} == {f"metacache {name}" for name in (*COMMANDS, "--help")}


def test_the_table_of_commands_has_every_argument() -> None:
    text = page("reference/command-line").text
    names = {argument.names[0] for command in COMMANDS.values() for argument in command.arguments}
    assert [name for name in {*names, "--url", "--json"} if name.startswith("--") and f"`{name}" not in text] == []


def test_the_table_of_exit_statuses_has_every_status() -> None:
    table = page("reference/command-line").table("status")
    assert {int(bare(row)) for row in table} == {status.value for status in Status}
