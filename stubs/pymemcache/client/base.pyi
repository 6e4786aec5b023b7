from collections.abc import Iterable, Mapping

from pymemcache.serde import CompressedSerde, PickleSerde

class Client:
    def __init__(
        self,
        server: str | tuple[str, int],
        *,
        connect_timeout: float | None = None,
        timeout: float | None = None,
        no_delay: bool = False,
        default_noreply: bool = True,
        serde: PickleSerde | CompressedSerde | None = None,
    ) -> None: ...
    def get(self, key: str | bytes) -> bytes | None: ...
    # None: the reply was neither STORED nor NOT_STORED.
    def set(self, key: str | bytes, value: bytes, expire: int = 0, noreply: bool | None = None) -> bool | None: ...
    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, bytes]: ...
    # The keys that were not stored.
    def set_many(
        self, values: Mapping[str, bytes], expire: int = 0, noreply: bool | None = None
    ) -> list[str | bytes]: ...
    def close(self) -> None: ...

class PooledClient:
    def __init__(
        self,
        server: str | tuple[str, int],
        *,
        no_delay: bool = False,
        default_noreply: bool = True,
        max_pool_size: int | None = None,
    ) -> None: ...
    def get(self, key: str | bytes) -> bytes | None: ...
    def set(self, key: str | bytes, value: bytes, expire: int = 0, noreply: bool | None = None) -> bool | None: ...
    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, bytes]: ...
    # The keys that were not stored.
    def set_many(
        self, values: Mapping[str, bytes], expire: int = 0, noreply: bool | None = None
    ) -> list[str | bytes]: ...
    def close(self) -> None: ...
