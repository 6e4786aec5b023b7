"""Each check of the contract of serializers fails for a serializer that breaks it."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import pytest
from typing_extensions import override

from metacache import Serializer
from metacache.serializers import fingerprint
from metacache.testing import SerializerContract


class Numbers:
    """A correct serializer of list[int]. The broken ones below differ from it in one thing."""

    wire_id: Any = 240  # Any: a broken one has other types
    fingerprint: Any = fingerprint(list[int], serializer="numbers")  # Any: as above

    def __init__(self, type_: object = list[int]) -> None:
        self.type_ = type_

    def dumps(self, value: Any, /) -> Any:  # Any: as above
        self.check(value)
        return json.dumps(value).encode()

    def loads(self, data: bytes, /) -> Any:  # Any: as above
        found = json.loads(data)
        self.check(found)
        return found

    def check(self, value: Any) -> None:
        if type(value) is not list:
            raise TypeError("not a list")
        items = cast("list[object]", value)  # their types are checked in the next line
        if any(type(item) is not int for item in items):
            raise TypeError("not a list of int")


class Classic(Numbers):
    wire_id = 1  # the pickle bit of other clients


class WithoutFingerprint(Numbers):
    fingerprint = 0


class WithTextAsFingerprint(Numbers):
    fingerprint = "7"


class WithHugeFingerprint(Numbers):
    fingerprint = 65536


class WithHash(Numbers):
    """Its fingerprint is a hash, which every process computes with another seed."""

    def __init__(self, type_: object = list[int]) -> None:
        super().__init__(type_)
        self.fingerprint = hash("numbers") % 65535 + 1


class WithCounter(Numbers):
    made = 0

    def __init__(self, type_: object = list[int]) -> None:
        super().__init__(type_)
        WithCounter.made += 1
        self.fingerprint = WithCounter.made % 65535 + 1


class WithBytearray(Numbers):
    @override
    def dumps(self, value: Any, /) -> Any:
        return bytearray(super().dumps(value))


class Lossy(Numbers):
    @override
    def loads(self, data: bytes, /) -> Any:
        return super().loads(data)[:2]


class WithTuples(Numbers):
    @override
    def loads(self, data: bytes, /) -> Any:
        return tuple(super().loads(data))


class Lax(Numbers):
    """Accepts what it should refuse."""

    @override
    def check(self, value: Any) -> None:
        pass


class Coercing(Numbers):
    @override
    def loads(self, data: bytes, /) -> Any:
        return [int(item) for item in json.loads(data)]


class Unchecked(Numbers):
    """Returns what the bytes hold; dumps is strict."""

    @override
    def loads(self, data: bytes, /) -> Any:
        return json.loads(data)


class WithTime(Numbers):
    """Its bytes hold a time. The clock is ours: two readings of the machine's may give the same digits."""

    clock = itertools.count()

    @override
    def dumps(self, value: Any, /) -> bytes:
        return b"%b%b" % (super().dumps(value), b" " * (next(self.clock) % 13))


class OnePerObject(Numbers):
    made = 0

    def __init__(self, type_: object = list[int]) -> None:
        super().__init__(type_)
        OnePerObject.made += 1
        self.padding = b" " * OnePerObject.made

    @override
    def dumps(self, value: Any, /) -> Any:
        return super().dumps(value) + self.padding


class WithSharedBuffer(Numbers):
    """Two threads use the same buffer."""

    def __init__(self, type_: object = list[int]) -> None:
        super().__init__(type_)
        self.buffer: list[bytes] = []

    @override
    def dumps(self, value: Any, /) -> bytes:
        self.check(value)
        self.buffer.clear()
        self.buffer.append(b"[")
        for number, item in enumerate(value):
            self.buffer.append(b", " * (number > 0) + b"%d" % item)
            time.sleep(0)
        self.buffer.append(b"]")
        return b"".join(self.buffer)


class Contract(SerializerContract):
    values: ClassVar = {list[int]: [[], [1, 2, 3], [-123]]}
    refused_values: ClassVar = {list[int]: [None, (1,), ["1"], [True], {}]}
    refused_bytes: ClassVar = {list[int]: [b"", b"{}", b'["1"]', b"[1.0]", b"[true]"]}
    refused_types: ClassVar[Sequence[object]] = ()
    kind: ClassVar[type[Numbers]] = Numbers

    @override
    def serializer(self, type_: Any) -> Serializer[Any]:  # Any: as in the contract
        return self.kind(type_)


class Hashing(Contract):
    kind = WithHash


class WithoutValues(Contract):
    values: ClassVar = {}


class WithEmptyValues(Contract):
    values: ClassVar = {list[int]: []}


class WithTwoTypes(Contract):
    values: ClassVar = {list[int]: [[]], tuple[int, ...]: [[]]}


class WithTwoTypesOfOneName(Contract):
    values: ClassVar = {type("Order", (), {}): [[]], type("Order", (), {}): [[]]}


class ServingAll(Contract):
    refused_types: ClassVar[Sequence[object]] = [str]


class Unknown(SerializerContract):
    plugin = "no-such-plugin"
    values: ClassVar = {bytes: [b""]}


def contract_of(serializer: type[Numbers]) -> SerializerContract:
    """Return the tests for *serializer*."""

    class Made(Contract):
        kind = serializer

    return Made()


CHECKS = [name for name in vars(SerializerContract) if name.startswith("test_")]
BROKEN: list[tuple[SerializerContract, str, str]] = [
    (contract_of(Classic), "test_wire_ids_keep_the_rule", "wire_id"),
    (contract_of(WithoutFingerprint), "test_fingerprints_are_stable_numbers", "needs a fingerprint"),
    (contract_of(WithTextAsFingerprint), "test_fingerprints_are_stable_numbers", "not an int"),
    (contract_of(WithHugeFingerprint), "test_fingerprints_are_stable_numbers", "not between 0 and 65535"),
    (contract_of(WithCounter), "test_fingerprints_are_stable_numbers", "changes from"),
    (WithTwoTypes(), "test_fingerprints_differ_between_types", "have the fingerprint"),
    (WithTwoTypesOfOneName(), "test_fingerprints_differ_between_types", "have the fingerprint"),
    (Hashing(), "test_fingerprints_are_the_same_in_another_process", "differ between processes"),
    (contract_of(WithBytearray), "test_values_come_back_equal", "returned bytearray, not bytes"),
    (contract_of(Lossy), "test_values_come_back_equal", r"differs after dumps and loads at \$"),
    (contract_of(WithTuples), "test_values_come_back_equal", r"differs after dumps and loads at \$"),
    (contract_of(Lossy), "test_values_come_back_through_a_client", "differs after set and get"),
    (contract_of(Lax), "test_wrong_values_are_refused", "dumps of list.int. accepted"),
    (contract_of(Lax), "test_wrong_bytes_are_refused", "loads of list.int. accepted"),
    (contract_of(Coercing), "test_wrong_bytes_are_refused", "loads of list.int. accepted"),
    (contract_of(Unchecked), "test_damaged_bytes_are_a_value_of_the_type_or_an_error", "dumps refuses it"),
    (contract_of(WithTime), "test_dumps_is_deterministic", "other bytes the second time"),
    (contract_of(OnePerObject), "test_dumps_is_deterministic", "two serializers"),
    (contract_of(WithSharedBuffer), "test_threads_may_share_a_serializer", "beside other threads"),
    (ServingAll(), "test_a_type_that_is_not_served_is_a_type_error", "is served"),
    (WithoutValues(), "test_values_come_back_equal", "set `values`"),
    (WithEmptyValues(), "test_values_come_back_equal", "no values for"),
    (Unknown(), "test_the_plugin_is_found_by_its_name", "no entry point"),
]


def named(case: tuple[SerializerContract, str, str]) -> str:
    contract = case[0]
    return f"{(contract.kind if isinstance(contract, Contract) else type(contract)).__name__}-{case[1]}"


@pytest.mark.parametrize("case", BROKEN, ids=named)
def test_the_contract_fails_for_a_broken_serializer(case: tuple[SerializerContract, str, str]) -> None:
    contract, check, message = case
    with pytest.raises(AssertionError, match=message):
        repeat(getattr(contract, check))


def repeat(check: Callable[[], object]) -> None:
    """Run *check* until a race shows."""
    for _ in range(30):
        check()


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_a_broken_serializer(check: str) -> None:
    assert check in {name for _, name, _ in BROKEN}


@pytest.mark.parametrize("check", [check for check in CHECKS if "plugin" not in check])
def test_the_contract_holds_for_a_correct_serializer(check: str) -> None:
    getattr(Contract(), check)()


def test_damage_covers_each_truncation_and_each_change_of_each_byte() -> None:
    seen: set[bytes] = set()

    class Recording(Numbers):
        @override
        def loads(self, data: bytes, /) -> Any:
            seen.add(data)
            return super().loads(data)

    class Made(Contract):
        values: ClassVar = {list[int]: [[12]]}
        kind = Recording

    Made().test_damaged_bytes_are_a_value_of_the_type_or_an_error()
    data = b"[12]"
    assert {data[:size] for size in range(4)} <= seen
    assert {data[:at] + bytes([byte]) + data[at + 1 :] for at in range(4) for byte in range(256)} - {data} <= seen


def test_a_refusal_names_no_type_that_does_not_exist() -> None:
    with pytest.raises(AssertionError) as raised:
        contract_of(Lossy).test_values_come_back_equal()
    assert re.match(r"a list\[int\] differs", str(raised.value))
