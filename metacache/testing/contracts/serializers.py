"""`SerializerContract`: the tests that every serializer must pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, ClassVar, Final
from unittest import SkipTest

from metacache.client.blocking import Client
from metacache.errors import SerializationError
from metacache.serializers import Serializer, available_serializers, difference, load_serializer
from metacache.serializers.names import type_name
from metacache.serializers.plain import is_own_int
from metacache.serializers.plugins import find_plugin
from metacache.serializers.wire_ids import PRIVATE, RULE, is_wire_id
from metacache.testing.contracts.processes import in_new_process
from metacache.testing.fake import FakeTransport

__all__ = ["SerializerContract"]

_NOTHING: Final[Mapping[object, Sequence[Any]]] = MappingProxyType({})  # Any: values of all types
_THREADS: Final = 8
_ROUNDS: Final = 50
_SWITCH: Final = 1e-5  # seconds that a thread runs before another one may


class SerializerContract:
    """Tests of a serializer plugin. Subclass it in a test module, with a name that begins with ``Test``.

    Attributes:
        plugin: the name of the serializer, as its entry point has it.
        values: for each type, values that must come back equal.
        refused_values: for each type, values that ``dumps`` must refuse.
        refused_bytes: for each type, bytes that ``loads`` must refuse, above all those of similar types.
        refused_types: types that the plugin must refuse with a TypeError.
        most_damage: the number of changed copies of one value that are read. If a value has more bytes than this
            allows for, the changes are spread evenly over its bytes.

    A serializer without a plugin overrides `serializer` instead of setting *plugin*.
    """

    plugin: ClassVar[str] = ""
    values: ClassVar[Mapping[Any, Sequence[object]]]  # Any: a type expression of every kind
    refused_values: ClassVar[Mapping[Any, Sequence[object]]] = _NOTHING  # Any: as above
    refused_bytes: ClassVar[Mapping[Any, Sequence[bytes]]] = _NOTHING  # Any: as above
    refused_types: ClassVar[Sequence[object]] = ()
    most_damage: ClassVar[int] = 10_000

    def serializer(self, type_: Any) -> Serializer[Any]:  # Any: TypeForm[T] and T of each type in `values`
        """Return a new serializer for *type_*. The default loads it by the name in *plugin*."""
        found: Serializer[Any] = load_serializer(self.plugin, type_)  # Any: as above
        return found

    # --- the plugin --------------------------------------------------------------------------------------------------

    def test_the_plugin_is_found_by_its_name(self) -> None:
        """An entry point has the name, and the plugin agrees with its serializers."""
        if not self.plugin:
            raise SkipTest("this serializer has no plugin")
        names = [info.name for info in available_serializers()]
        assert self.plugin in names, f"no entry point of metacache.serializers is called {self.plugin!r}: {names}"
        plugin = find_plugin(self.plugin).plugin
        for type_, serializer in self._serializers():
            assert plugin.supports(type_) is True, f"supports() is not True for {type_name(type_)}"
            assert serializer.wire_id == plugin.wire_id, (
                f"plugin and serializer of {type_name(type_)} differ in wire_id"
            )

    def test_a_type_that_is_not_served_is_a_type_error(self) -> None:
        """The plugin refuses each of *refused_types*."""
        for type_ in self.refused_types:
            try:
                self.serializer(type_)
            except TypeError:
                continue
            raise AssertionError(f"{type_name(type_)} is served")

    # --- the ids -----------------------------------------------------------------------------------------------------

    def test_wire_ids_keep_the_rule(self) -> None:
        """No other memcached client takes a stored value for its own."""
        for type_, serializer in self._serializers():
            wire_id = serializer.wire_id
            is_good = is_wire_id(wire_id) or is_own_int(serializer)
            assert is_good, f"the wire_id for {type_name(type_)} is {wire_id!r}, but {RULE}"

    def test_fingerprints_are_stable_numbers(self) -> None:
        """A fingerprint is an int from 0 to 65535, the same each time, and not 0 with a private wire_id."""
        for type_, serializer in self._serializers():
            found, name = serializer.fingerprint, type_name(type_)
            assert type(found) is int, f"the fingerprint of {name} is not an int"
            assert 0 <= found <= 0xFFFF, f"the fingerprint of {name} is {found}, not between 0 and 65535"
            again = self.serializer(type_).fingerprint
            assert found == again, f"the fingerprint of {name} changes from {found} to {again}"
            is_private = serializer.wire_id in PRIVATE
            assert found or not is_private, f"wire_id {serializer.wire_id} is private, so {name} needs a fingerprint"

    def test_fingerprints_differ_between_types(self) -> None:
        """Two types never have the same fingerprint, except 0."""
        seen: dict[int, object] = {}
        for type_, serializer in self._serializers():
            # The types and not their names: two classes of one name may have different fields.
            other = seen.setdefault(serializer.fingerprint, type_) if serializer.fingerprint else type_
            assert other == type_, (
                f"{type_name(other)} and {type_name(type_)} have the fingerprint {serializer.fingerprint}"
            )

    def test_fingerprints_are_the_same_in_another_process(self) -> None:
        """A fingerprint does not depend on the hashes or addresses of one process."""
        types = list(self._values())
        ours = fingerprints(type(self), types)
        theirs = in_new_process(fingerprints, type(self), types)
        assert ours == theirs, f"fingerprints differ between processes: {ours} and {theirs}"

    # --- values ------------------------------------------------------------------------------------------------------

    def test_values_come_back_equal(self) -> None:
        """``loads(dumps(value))`` equals the value field by field, with the same classes, and dumps returns bytes."""
        for type_, serializer, value in self._cases():
            data: object = serializer.dumps(value)
            assert type(data) is bytes, f"dumps of {type_name(type_)} returned {type(data).__name__}, not bytes"
            found = difference(value, serializer.loads(data))
            assert found is None, f"a {type_name(type_)} differs after dumps and loads at {found}"

    def test_values_come_back_through_a_client(self) -> None:
        """A client stores and returns each value."""
        for type_, serializer, value in self._cases():
            client = Client(FakeTransport(), serializer)
            client.set("key", value)
            item = client.get_item("key")
            assert item is not None, f"a client cannot decode the {type_name(type_)} that it stored"
            found = difference(value, item.value)
            assert found is None, f"a {type_name(type_)} differs after set and get at {found}"

    def test_wrong_values_are_refused(self) -> None:
        """``dumps`` refuses *refused_values*, and a client sends nothing."""
        for type_, values in self.refused_values.items():
            serializer = self.serializer(type_)
            for value in values:
                message = f"dumps of {type_name(type_)} accepted a {type(value).__name__}: {value!r}"
                assert _fails(lambda: serializer.dumps(value)), message  # noqa: B023 - called before the next turn
                transport = FakeTransport()
                try:
                    Client(transport, serializer).set("key", value)
                except SerializationError:
                    assert transport.operations == []

    def test_wrong_bytes_are_refused(self) -> None:
        """``loads`` refuses *refused_bytes*: it never coerces."""
        for type_, refused in self.refused_bytes.items():
            serializer = self.serializer(type_)
            for data in refused:
                message = f"loads of {type_name(type_)} accepted {data!r}"
                assert _fails(lambda: serializer.loads(data)), message  # noqa: B023 - called before the next turn

    def test_damaged_bytes_are_a_value_of_the_type_or_an_error(self) -> None:
        """After every truncation and every change of one byte, ``loads`` fails or returns a value of the type.

        A value is of the type if ``dumps`` accepts it and it comes back equal.
        """
        for type_, serializer, value in self._cases():
            for damaged in _damaged(serializer.dumps(value), self.most_damage):
                _check_damaged(serializer, damaged, type_name(type_))

    def test_dumps_is_deterministic(self) -> None:
        """The same value gives the same bytes, each time and from each serializer of the type."""
        for type_, serializer, value in self._cases():
            first = serializer.dumps(value)
            name = type_name(type_)
            assert serializer.dumps(value) == first, f"dumps of {name} returned other bytes the second time"
            assert self.serializer(type_).dumps(value) == first, f"two serializers of {name} return different bytes"

    def test_threads_may_share_a_serializer(self) -> None:
        """Threads that use one serializer at the same time get the bytes and values of a single thread."""
        cases = [(type_, serializer, value, serializer.dumps(value)) for type_, serializer, value in self._cases()]

        def problem(type_: object, serializer: Serializer[Any], value: object, data: bytes) -> str:  # Any: as above
            try:
                if serializer.dumps(value) != data:
                    return f"beside other threads, dumps of {type_name(type_)} returned other bytes"
                if difference(value, serializer.loads(data)) is not None:
                    return f"beside other threads, loads of {type_name(type_)} returned another value"
            except Exception as error:
                return f"beside other threads, a serializer of {type_name(type_)} raised {error!r}"
            return ""

        def work(first: int) -> list[str]:
            return [problem(*cases[(first + number) % len(cases)]) for number in range(_ROUNDS)]

        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                problems = {found for each in threads.map(work, range(_THREADS)) for found in each if found}
        finally:
            sys.setswitchinterval(interval)
        assert not problems, "; ".join(sorted(problems))

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _values(self) -> Mapping[Any, Sequence[object]]:  # Any: as in `values`
        values = getattr(self, "values", _NOTHING)
        empty = [type_name(type_) for type_ in values if not values[type_]]
        assert values, "set `values`: for each type, values that must come back equal"
        assert not empty, f"there are no values for {empty}"
        return values

    def _serializers(self) -> Iterator[tuple[object, Serializer[Any]]]:  # Any: as in `serializer`
        for type_ in self._values():
            yield type_, self.serializer(type_)

    def _cases(self) -> Iterator[tuple[object, Serializer[Any], object]]:  # Any: as in `serializer`
        for type_, values in self._values().items():
            serializer = self.serializer(type_)
            for value in values:
                yield type_, serializer, value


def fingerprints(contract: type[SerializerContract], types: Sequence[object]) -> list[int]:
    """Return the fingerprint of each of *types*. Public within this package, so that another process can import it."""
    return [contract().serializer(type_).fingerprint for type_ in types]


def _fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return True
    return False


def _damaged(data: bytes, most: int) -> Iterator[bytes]:
    """Yield each truncation of *data*, *data* with one byte more, and copies with one changed byte."""
    yield from (data[:size] for size in range(len(data)))
    yield data + b"\0"
    changes = 255 * len(data)
    for number in range(0, changes, max(1, -(-changes // most))):
        place, change = divmod(number, 255)
        yield data[:place] + bytes((data[place] ^ (change + 1),)) + data[place + 1 :]


def _check_damaged(serializer: Serializer[Any], damaged: bytes, name: str) -> None:  # Any: as in `serializer`
    try:
        found = serializer.loads(damaged)
    except Exception:
        return
    try:
        again = serializer.loads(serializer.dumps(found))
    except Exception as error:
        message = f"loads of {name} made a {type(found).__name__} of the damaged bytes {damaged!r}: dumps refuses it"
        raise AssertionError(message) from error
    different = difference(found, again)
    assert different is None, f"loads of {name} made a value of {damaged!r} that differs at {different}"
