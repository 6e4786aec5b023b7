from collections.abc import Callable

# The classes that a Client accepts as its serde. Values are of any class.
class PickleSerde:
    def serialize(self, key: object, value: object) -> tuple[object, int]: ...
    def deserialize(self, key: object, value: bytes, flags: int) -> object: ...

class CompressedSerde:
    def __init__(
        self,
        compress: Callable[[bytes], bytes] = ...,
        decompress: Callable[[bytes], bytes] = ...,
        serde: PickleSerde = ...,
        min_compress_len: int = 400,
    ) -> None: ...
    def serialize(self, key: object, value: object) -> tuple[object, int]: ...
    def deserialize(self, key: object, value: bytes, flags: int) -> object: ...

pickle_serde: PickleSerde
