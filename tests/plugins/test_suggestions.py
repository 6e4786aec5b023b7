"""An error about a serializer suggests the installed ones that serve the type, or else which extra to install."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
import msgspec
import pytest
from typing_extensions import TypedDict

from metacache import AsyncCluster, Cluster, InvalidTypeError, connect, connect_async, load_serializer
from metacache.serializers import fingerprint
from metacache.serializers.plugins import PLUGINS
from tests.plugins.distributions import PLUGIN, install, put_on_path

URL: Final = "memcached://127.0.0.1:1"


class Account(msgspec.Struct):
    name: str


@dataclasses.dataclass
class Order:
    number: int


@attrs.define
class Profile:
    name: str


class Note(TypedDict):
    text: str


class Frozen:
    pass


def by_connect(type_: Any) -> object:  # Any: a type expression
    return connect(URL, type_)


def by_connect_async(type_: Any) -> object:
    return connect_async(URL, type_)


def by_cluster(type_: Any) -> object:
    with Cluster.from_url(URL) as cluster:
        return cluster.client(type_)


def by_async_cluster(type_: Any) -> object:
    return AsyncCluster.from_url(URL).client(type_)


MAKERS: Final = [by_connect, by_connect_async, by_cluster, by_async_cluster]


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(InvalidTypeError) as refused:
        make()
    return str(refused.value)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on sys.path."""
    put_on_path(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that hides the distributions with the given names."""

    def hide(*names: str) -> None:
        left = tuple(point for point in PLUGINS.installed() if point.name not in names)

        def found(group: str, _: object) -> tuple[EntryPoint, ...]:
            return tuple(point for point in left if point.group == group)

        monkeypatch.setattr("metacache.entry_points._installed", found)

    return hide


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("type_", "first", "others"),
    [
        (Account, "msgspec", {"msgspec-json"}),
        (list[Account], "msgspec", {"msgspec-json"}),
        (Order, "msgspec", {"orjson", "pydantic", "msgspec-json"}),
        (Profile, "msgspec", {"orjson", "attrs", "msgspec-json"}),
        (Note, "msgspec", {"orjson", "pydantic", "json", "msgspec-json"}),
        (bool, "msgspec", {"orjson", "pydantic", "json", "msgspec-json"}),
    ],
)
def test_the_message_names_the_serializers_that_serve_the_type(
    make: Callable[[Any], object], type_: Any, first: str, others: set[str]
) -> None:
    message = refusal(lambda: make(type_))
    assert " need a serializer: give serializer=" in message
    named = message.partition("serializer=")[2].split("'")[1::2]
    assert named[0] == first
    assert set(named[1:]) == others
    for name in named:
        assert load_serializer(name, type_).fingerprint != 0


def test_the_message_reads_well() -> None:
    assert refusal(lambda: by_connect(list[Account])) == (
        "values of list[tests.plugins.test_suggestions.Account] need a serializer: "
        "give serializer='msgspec' (or 'msgspec-json')"
    )


def test_a_serializer_that_is_installed_later_is_suggested(directory: Path) -> None:
    served = "__import__('string').Template"
    module = f"{PLUGIN}\n    P = Plugin(208, served={served})\n"
    install(directory, "templated", {"templated": "templated:P"}, {"templated": module})
    template: Any = __import__("string").Template
    assert refusal(lambda: by_connect(template)).endswith("need a serializer: give serializer='templated'")
    assert "give serializer='templated'" in refusal(lambda: load_serializer("msgspec", template))


@pytest.mark.parametrize(
    "source",
    ["raise ImportError('no')", "raise SystemExit(3)", "import no_such_library", "P = object()", "x = 1", "1 +"]
    + [f"{PLUGIN}\n    P = Plugin(33)\n", f"{PLUGIN}\n    P = Plugin(96, api_version=2)\n"],
)
def test_an_unusable_plugin_does_not_hide_the_others(directory: Path, source: str) -> None:
    module = f"broken{abs(hash(source))}"
    install(directory, "broken", {"a-broken-one": f"{module}:P"}, {module: source})
    assert refusal(lambda: by_connect(Account)).endswith("give serializer='msgspec' (or 'msgspec-json')")
    assert "give serializer='msgspec'" in refusal(lambda: load_serializer("orjson", Account))


def test_two_plugins_of_one_name_do_not_hide_the_others(directory: Path) -> None:
    for name in ("first", "second"):
        install(directory, name, {"same": f"{name}:P"}, {name: "raise SystemExit('imported')"})
    assert refusal(lambda: by_connect(Account)).endswith("give serializer='msgspec' (or 'msgspec-json')")


def test_without_a_serving_plugin_the_message_says_what_to_install(without: Callable[..., None]) -> None:
    without("msgspec", "msgspec-json", "orjson", "attrs", "pydantic")
    assert refusal(lambda: by_connect(Account)).endswith(
        "need a serializer: no installed serializer serves this type; "
        "try pip install 'metacache[msgspec]' (or 'metacache[orjson]', 'metacache[attrs]', 'metacache[pydantic]')"
    )
    assert refusal(lambda: load_serializer("json", Account)).endswith(
        "; no other installed serializer serves this type; "
        "try pip install 'metacache[msgspec]' (or 'metacache[orjson]', 'metacache[attrs]', 'metacache[pydantic]')"
    )


def test_the_message_names_only_missing_extras(without: Callable[..., None]) -> None:
    without("msgspec", "msgspec-json")
    assert refusal(lambda: by_connect(Account)).endswith("serves this type; try pip install 'metacache[msgspec]'")


def test_if_no_plugin_serves_the_type_the_message_has_their_reasons() -> None:
    message = refusal(lambda: by_connect(io.StringIO))
    assert message.startswith("values of io.StringIO need a serializer: no installed serializer serves this type (")
    assert "msgspec: msgspec needs hooks for StringIO" in message
    assert "pip" not in message


def test_the_message_says_why_no_serializer_can_serve_a_type() -> None:
    def local() -> type:
        class Local:
            pass

        return Local

    message = refusal(lambda: by_connect(list[local()]))  # type: ignore[misc]
    assert "local_types" not in message
    assert message.endswith("Local, which is local to a function")


@pytest.mark.parametrize(
    ("name", "type_", "reason"),
    [
        ("bytes", str, "it serves only bytes"),
        ("str", int, "it serves only str"),
        ("int", bool, "it serves only int"),
        ("json", Account, ""),
        ("msgspec", Frozen, "msgspec needs hooks for Frozen"),
        ("msgspec", tuple[int, *tuple[str, ...]], "msgspec does not support an unpacked tuple"),
        ("attrs", int, "it contains no attrs class"),
        ("attrs", list[Order], "it contains no attrs class"),
        ("orjson", pathlib.Path, "Path"),
    ],
)
def test_a_serializer_says_why_it_does_not_serve(name: str, type_: Any, reason: str) -> None:
    message = refusal(lambda: load_serializer(name, type_))
    assert message.startswith(f"serializer '{name}' does not serve ")
    assert reason in message
    assert message == refusal(lambda: connect(URL, type_, serializer=name))


BUILD: Final = """
    class Plugin:
        api_version, wire_id = 1, 96
        def supports(self, type_): {supports}
        def build(self, type_): {build}
    P = Plugin()
"""


@pytest.mark.parametrize(
    ("supports", "build", "shown"),
    [
        ("return False", "raise TypeError('no room for it')", ": no room for it; give"),
        ("return True", "raise TypeError('no room for it')", ": no room for it; give"),
        ("return False", "raise NameError('no Missing')", ": no Missing; give"),
        ("return False", "raise KeyError('secret')", ": it raised KeyError; give"),
        ("raise ValueError('secret')", "return 1", ": it raised ValueError; give"),
        ("return False", "return 1", "Account; give"),
        ("return False", "raise TypeError", "Account; give"),
    ],
)
def test_the_reason_is_what_build_raises(directory: Path, supports: str, build: str, shown: str) -> None:
    module = f"unwilling{abs(hash(supports + build))}"
    install(
        directory, "unwilling", {"unwilling": f"{module}:P"}, {module: BUILD.format(supports=supports, build=build)}
    )
    message = refusal(lambda: load_serializer("unwilling", Account))
    assert shown in message
    assert "secret" not in message


class Alarm(Exception):
    """The exception of the signal handler."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """Install a handler of SIGUSR1 that raises Alarm."""

    def handler(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


class SignallingMetadata:
    """Metadata whose iterator sends the signal."""

    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[object]:
        signal.raise_signal(signal.SIGUSR1)
        return iter(())


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("method", ["supports", "build"])
def test_the_exception_of_a_signal_handler_is_not_a_reason(directory: Path, method: str) -> None:
    methods = {"supports": "return True", "build": "return 1"}
    methods[method] = "import signal; signal.raise_signal(signal.SIGUSR1)"
    install(directory, "rung", {"rung": f"rung_{method}:P"}, {f"rung_{method}": BUILD.format(**methods)})
    with pytest.raises(Alarm):
        load_serializer("rung", Account)
    with pytest.raises(Alarm):
        fingerprint(Annotated[int, SignallingMetadata()])
    for name in ("json", "msgspec"):
        with pytest.raises(Alarm):
            load_serializer(name, Annotated[int, SignallingMetadata()])


def test_an_exception_that_interrupts_a_plugin_is_not_its_reason(directory: Path) -> None:
    source = BUILD.format(supports="raise KeyboardInterrupt", build="return 1")
    install(directory, "interrupted", {"interrupted": "interrupted:P"}, {"interrupted": source})
    with pytest.raises(KeyboardInterrupt):
        load_serializer("interrupted", Account)
    with pytest.raises(KeyboardInterrupt):
        by_connect(pathlib.Path)
    assert "interrupted" in sys.modules
