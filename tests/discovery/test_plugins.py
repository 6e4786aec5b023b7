"""Node sources by entry point: built-in sources, sources of other distributions, and errors for a name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metacache import InvalidArgumentError, InvalidTypeError, Node, Settings
from metacache.discovery import (
    DnsSource,
    ElastiCacheSource,
    NodeSource,
    NodeSourceInfo,
    StaticSource,
    available_node_sources,
    load_node_source,
)
from tests.plugins.distributions import install, put_on_path

SOURCE = """
    from metacache import Node

    class Consul:
        def __init__(self, host, port, *, settings):
            self.node = Node(f"{host}:{port}", weight=settings.timeout)
        def poll(self):
            return [self.node]
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is on sys.path."""
    put_on_path(monkeypatch, tmp_path)
    return tmp_path


def test_the_built_in_sources_are_found_by_name() -> None:
    assert isinstance(load_node_source("dns")("cache", 11211, settings=Settings()), DnsSource)
    assert isinstance(load_node_source("elasticache")("cache", 11211, settings=Settings()), ElastiCacheSource)


def test_a_static_source_returns_its_nodes() -> None:
    source: NodeSource = StaticSource([Node("a"), Node("b")])
    assert source.poll() == (Node("a"), Node("b"))
    assert repr(source) == "<StaticSource: 2 nodes>"


def test_a_source_of_another_distribution_is_found_by_name(directory: Path) -> None:
    install(directory, "metacache-consul", {"consul": "consul_nodes:Consul"}, {"consul_nodes": SOURCE}, "node_sources")
    source = load_node_source("consul")("registry", 8500, settings=Settings(timeout=0.5))
    assert source.poll() == [Node("registry:8500", weight=0.5)]


def test_listing_names_distribution_and_version_and_imports_nothing(directory: Path) -> None:
    bang = {"loud_nodes": "raise SystemExit('imported')"}
    install(directory, "loud", {"loud": "loud_nodes:Source"}, bang, "node_sources", version="2.1")
    listed = available_node_sources()
    assert NodeSourceInfo("loud", "loud", "2.1", "loud_nodes:Source") in listed
    assert "loud_nodes" not in sys.modules
    assert [info.name for info in listed] == ["dns", "elasticache", "loud"]


def test_the_error_for_an_unknown_name_lists_the_installed_ones() -> None:
    with pytest.raises(InvalidArgumentError) as missing:
        load_node_source("etcd")
    assert str(missing.value) == "no node source is called 'etcd'; installed node sources: dns, elasticache"


def test_the_error_for_a_name_offered_twice_names_both_distributions(directory: Path) -> None:
    for name in ("first", "second"):
        bang = {f"{name}_nodes": "raise SystemExit('imported')"}
        install(directory, name, {"same": f"{name}_nodes:Source"}, bang, "node_sources")
    with pytest.raises(InvalidArgumentError) as conflict:
        load_node_source("same")
    assert str(conflict.value) == (
        "several distributions offer node source 'same': first (first_nodes:Source) and second (second_nodes:Source); "
        "uninstall all but one"
    )


def test_a_distribution_found_twice_is_not_a_conflict(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path_factory.mktemp("again")
    for where in (directory, again):
        install(where, "twofold", {"twofold": "twofold_nodes:Consul"}, {"twofold_nodes": SOURCE}, "node_sources")
    put_on_path(monkeypatch, again)
    assert load_node_source("twofold")("h", 1, settings=Settings()).poll() == [Node("h:1")]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_library", "cannot be imported from hollow_nodes:Source: No module named"),
        ("", "cannot be imported from hollow_nodes:Source: "),
        ("Source = 3", "hollow_nodes:Source is not a factory"),
    ],
)
def test_the_error_for_a_source_that_cannot_be_loaded_has_the_reason(
    source: str, why: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "hollow_nodes", raising=False)
    install(directory, "hollow", {"hollow": "hollow_nodes:Source"}, {"hollow_nodes": source}, "node_sources")
    with pytest.raises(InvalidArgumentError, match=f"node source 'hollow'.*{why}"):
        load_node_source("hollow")
    sys.modules.pop("hollow_nodes", None)


def test_a_source_name_must_be_a_str() -> None:
    with pytest.raises(InvalidTypeError, match="a node source's name must be a str, not NoneType"):
        # A caller without a type checker may pass this.
        load_node_source(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
