"""README.md as its reader takes it: examples run, quotes are the files, tables say what the code says."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

import attrs
import pytest

from metacache import AsyncClient, Client, Cluster, InvalidArgumentError, Settings, __version__, errors
from metacache.cluster.health import NodeState
from metacache.options import Options, ViewOptions
from tests.docs.pages import PAGES, ROOT

PAGE: Final = PAGES[0]
README: Final = PAGE.text


# --- tables ----------------------------------------------------------------------------------------------------------


def bare(cell: str) -> str:
    return cell.strip("`")


def test_the_table_of_options_has_every_option_and_its_default() -> None:
    told = {bare(name): ast.literal_eval(bare(default)) for name, (default, _) in PAGE.table("option").items()}
    assert told == attrs.asdict(Options(prefix=""))
    views = next(cells[1] for verb, cells in PAGE.table("verb").items() if "with_options" in verb)
    assert set(re.findall(r"`(\w+)`", views)) == ViewOptions.__annotations__.keys()


def test_the_table_of_settings_has_every_setting_and_its_default() -> None:
    told = {bare(name): ast.literal_eval(default) for name, (default, _) in PAGE.table("setting").items()}
    assert told == {field.name: getattr(Settings(), field.name) for field in attrs.fields(Settings)}


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Settings)])
def test_every_setting_may_stand_in_a_url_but_those_said_not_to(field: str) -> None:
    default = getattr(Settings(), field)
    url = f"memcached://cache-1/?{field}={1 if default is None else default}"
    exceptions = re.findall(r"Any setting but ([^.]*) may stand in the query", " ".join(README.split()))
    if f"`{field}`" in exceptions[0]:
        with pytest.raises(InvalidArgumentError, match="unknown key"):
            Cluster.from_url(url)
    else:
        Cluster.from_url(url).close()


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_table_of_verbs_has_every_verb(client: type) -> None:
    told = {verb for cell in PAGE.table("verb") for verb in re.findall(r"`(\w+)\(", cell)}
    other_close = {"aclose"} if client is Client else {"close"}
    public = {name for name in dir(client) if not name.startswith("_")}
    verbs = {name for name in public if callable(getattr(client, name))}
    assert told - other_close == verbs
    assert all(f"`{counter}`" in README for counter in public - verbs)


def test_the_table_of_serializers_has_every_one_with_its_wire_id_and_distribution() -> None:
    told = {bare(name): (int(cells[0]), cells[-1]) for name, cells in PAGE.table("name").items()}
    plugins = entry_points(group="metacache.serializers")
    found = {plugin.name: (plugin.load().wire_id, plugin.dist.name if plugin.dist else "") for plugin in plugins}
    assert told == found


def told_errors() -> Iterator[tuple[int, str, str]]:
    """Yield each error of the tree: its depth, its name, the built-in in brackets behind it."""
    for match in re.finditer(r"^    ([│ ]*[├└]─ )?(\w+)(?: \((\w+)\))?( .*)?$", tree(), re.MULTILINE):
        yield len(match[1] or ""), match[2], match[3] or "Exception"


def tree() -> str:
    return README[README.index("    MetacacheError\n") :].partition("\n\n")[0]


def test_the_tree_of_errors_has_every_error_below_what_it_is_one_of() -> None:
    path: list[tuple[int, type]] = []
    found = list(told_errors())
    assert sorted(name for _, name, _ in found) == sorted(errors.__all__)
    for depth, name, builtin in found:
        error: type = getattr(errors, name)
        while path and path[-1][0] >= depth:
            path.pop()
        assert issubclass(error, getattr(builtins, builtin))
        assert error.__bases__[0] is (path[-1][1] if path else Exception)
        path.append((depth, error))


def test_the_table_of_failures_speaks_of_every_state_of_a_node_and_of_no_other() -> None:
    lines = README[README.index("| state of the node |") :].partition("\n\n")[0].splitlines()[2:]
    before = {state for line in lines for state in line.split("|")[1].strip().split(", ")}
    assert before - {"any"} == {state.value for state in NodeState}


# --- the rest --------------------------------------------------------------------------------------------------------


def test_every_target_that_is_named_is_one_of_the_makefile() -> None:
    named = set(re.findall(r"\bmake (demo|test|bench|check|[a-z]+)(?= {2,}#|`)", README))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_changelog_begins_with_this_version() -> None:
    first = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert first == __version__
