import plistlib

from metacache import load_serializer
from metacache.testing import check_serializer


def test_the_serializer_keeps_the_contract() -> None:
    check_serializer(
        load_serializer("plist", dict[str, int]),
        values=[{}, {"visits": 3}, {"zero": 0, "negative": -1}],
        refused_values=[None, [], {"visits": "3"}, {"visits": True}, {1: 2}],
        refused_bytes=[b"", b"visits", plistlib.dumps({"visits": 3}), plistlib.dumps([1], fmt=plistlib.FMT_BINARY)],
    )
