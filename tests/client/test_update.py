"""`update` on every kind of item: the argument of its function, the store of the result, and the errors."""

from __future__ import annotations

import pytest

from metacache import DecodeError, ServerError
from metacache.serializers import StrSerializer
from metacache.testing import Memcached
from tests.client.states import FLAGS, MAGIC, STATES, all_items, look, put
from tests.client.watched import REAL, on_a_memcached
from tests.conftest import start

OWN = MAGIC | StrSerializer().wire_id


def given(state: str, flags: str) -> tuple[str | None, bool]:
    """Return the expected argument of the function, and whether it replaces an undecodable value."""
    value, is_stale, _ = STATES[state]
    if value is None or (value == b"" and is_stale and flags == "none"):
        return None, False  # a lease, or an item that looks like one
    is_readable = FLAGS[flags] in (0, OWN, OWN | 0x1234 << 12)
    return (value.decode(), False) if is_readable else (None, True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", REAL)
async def test_update_replaces_every_item_by_its_cas(shared_memcached: Memcached, kind: str, *, strict: bool) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    texts = watched.make(StrSerializer(), on_undecodable="raise" if strict else "miss")
    wrong: list[object] = []
    for number, (state, flags) in enumerate(all_items()):
        key = f"updating:{kind}:{strict}:{number}"
        put(shared_memcached.node, key, state, flags)
        watched.heads.clear()
        seen: list[str | None] = []

        def change(found: str | None, seen: list[str | None] = seen) -> str:
            seen.append(found)
            return "new"

        found, is_undecodable = given(state, flags)
        if strict and is_undecodable:
            with pytest.raises(DecodeError):
                await texts.update(key, change)
            is_right = seen == [] and len(watched.heads) == 1
        else:
            await texts.update(key, change)
            after = look(shared_memcached.node, key)
            is_stored = after is not None and not after.marks and after[:2] == (b"new", OWN)
            is_right = seen == [found] and is_stored and b" C" in watched.heads[1] and b" ME" not in watched.heads[1]
        if not is_right:
            wrong.append((state, flags, seen, watched.heads[:]))
    assert wrong == []
    await watched.aclose()


@pytest.mark.parametrize("kind", REAL)
async def test_update_adds_an_absent_key(shared_memcached: Memcached, kind: str) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    key = f"updating:absent:{kind}"
    assert await watched.make(StrSerializer()).update(key, lambda found: f"was {found}") == "was None"
    assert watched.heads[1].endswith(b" ME")
    await watched.aclose()


@pytest.mark.parametrize("kind", REAL)
async def test_update_refuses_a_server_without_cas(kind: str) -> None:
    with start("-C") as server:
        watched = on_a_memcached(kind, server)
        texts = watched.make(StrSerializer())
        await texts.set("k", "old")
        with pytest.raises(ServerError, match="without CAS") as raised:
            await texts.update("k", lambda _: "new")
        assert (raised.value.node, raised.value.operation, raised.value.key) == (server.node.name, "update", "k")
        assert await texts.get("k") == "old"
        await watched.aclose()
