"""Who asks a node that is down whether it is back, when several callers could."""

from __future__ import annotations

import math
from time import monotonic

from metacache import BatchError, Cluster, Settings
from metacache.batches import GET_MANY
from metacache.cluster.health import NodeState
from metacache.transports import Batch
from tests.cluster.rig import bring_down, failure_of, freeze, key_of, nodes_of, servers, state_of
from tests.pool.rig import Call, finish, until


def test_a_batch_that_comes_too_late_to_probe_does_not_end_the_probe_of_another_caller() -> None:
    settings = Settings(timeout=10.0, pool_size=1)
    with servers(2) as (first, second), Cluster(nodes_of([first, second]), settings=settings) as cluster:
        client = cluster.client()
        mine, lost = key_of(cluster, "a"), key_of(cluster, "b")
        second.kill()
        bring_down(client, lost)
        second.restart()
        freeze(second)  # so that a probe goes on for as long as this test wants
        probe_at = monotonic() + 0.7
        until(lambda: monotonic() >= probe_at)
        busy = cluster.begin(Batch(GET_MANY, [mine], [mine.encode()], [f"mg {mine} f v".encode()]), deadline=math.inf)
        late = Call(
            lambda: failure_of(lambda: client.get_many([mine, lost]))
        )  # means to probe, and waits for its place
        until(lambda: next(iter(cluster.statistics.values())).waiting == 1)
        prober = Call(lambda: client.get(lost))
        until(lambda: state_of(cluster, "b") is NodeState.PROBING)
        finish(busy)
        assert isinstance(late.result(), BatchError)
        assert state_of(cluster, "b") is NodeState.PROBING
        second.thaw()
        assert prober.result() is None
        assert state_of(cluster, "b") is NodeState.UP
