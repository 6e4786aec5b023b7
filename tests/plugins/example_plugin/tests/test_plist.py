import plistlib

from metacache.testing import SerializerContract


class TestPlist(SerializerContract):
    plugin = "plist"
    values = {dict[str, int]: [{}, {"visits": 3}, {"zero": 0, "negative": -1}], dict[str, bytes]: [{"a": b"\0"}]}
    refused_values = {dict[str, int]: [None, [], {"visits": "3"}, {"visits": True}, {1: 2}]}
    refused_bytes = {dict[str, int]: [b"", plistlib.dumps({"visits": 3}), plistlib.dumps([1], fmt=plistlib.FMT_BINARY)]}
    refused_types = [list[int], dict[int, int]]
