"""Only values of the built-in bytes serializer skip `loads` and `dumps`; those of any other serializer do not."""

from __future__ import annotations

from typing import Final, final

from metacache import Serializer
from metacache.operations.arguments import DEFAULT
from metacache.operations.batches import Batches
from metacache.operations.options import Options
from metacache.operations.policies import UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import Operations
from metacache.operations.statistics import Counts
from metacache.protocol.windows import Replies
from metacache.serializers.builtin import BytesSerializer
from metacache.serializers.frame import Frame


@final
class Reversed:
    """A serializer of bytes with the client flags of the built-in one."""

    wire_id = 32
    fingerprint = 0

    def dumps(self, value: bytes, /) -> bytes:
        return value[::-1]

    def loads(self, data: bytes, /) -> bytes:
        return data[::-1]


OWN: Final = b"f%d" % Frame(BytesSerializer()).flags


def reader(serializer: Serializer[bytes]) -> Reader[bytes]:
    return Reader(Frame(serializer), UndecodablePolicy(strict=False), Counts())


def replies() -> Replies:
    found = Replies(2)
    found.headers = [b"VA 3 " + OWN, b"VA 3 " + OWN]
    found.values = [b"abc", b"def"]
    return found


def test_a_read_calls_loads_of_a_serializer_that_is_not_the_built_in_one() -> None:
    for serializer, expected in ((BytesSerializer(), b"abc"), (Reversed(), b"cba")):
        some = reader(serializer)
        assert some.value(([b"VA", b"3", OWN], b"abc")) == expected
        for _ in range(2):  # the first batch learns the header line, the second one knows it
            assert some.values(["a", "b"], replies(), {})["a"] == expected


def test_a_write_calls_dumps_of_a_serializer_that_is_not_the_built_in_one() -> None:
    for serializer, expected in ((BytesSerializer(), b"abc"), (Reversed(), b"cba")):
        operations = Operations(reader(serializer), Options(), lambda: 0.0)
        assert operations.set("key", b"abc", DEFAULT).body == expected
        assert Batches(operations).set_many({"key": b"abc"}, DEFAULT).batch.bodies == [expected]


def test_hits_of_values_that_skip_loads_are_counted() -> None:
    counts = Counts()
    some = Reader(Frame(BytesSerializer()), UndecodablePolicy(strict=False), counts)
    some.value(([b"VA", b"3", OWN], b"abc"))
    for _ in range(2):
        some.values(["a", "b"], replies(), {})
    assert counts.hits == 5
