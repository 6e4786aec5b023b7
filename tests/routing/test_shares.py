"""With a million keys, the share of each node is proportional to its weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest

from metacache.routing import RendezvousRouter
from tests.routing.reference import nodes

KEYS = 1_000_000
AT_ONCE = 5_000


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Return the probability that a chi-square exceeds *statistic*: 1 - P(degrees / 2, statistic / 2), by a series."""
    a, x = degrees / 2, statistic / 2
    term = total = 1 / a
    while term > total * 1e-16:
        a += 1
        term *= x / a
        total += term
    return 1 - total * math.exp(-x + degrees / 2 * math.log(x) - math.lgamma(degrees / 2))


@pytest.mark.parametrize(
    ("statistic", "degrees", "tail"),
    [(3.841459, 1, 0.05), (6.634897, 1, 0.01), (9.210340, 2, 0.01), (23.209251, 10, 0.01), (19.767744, 29, 0.9)],
)
def test_the_chi_square_tail_matches_published_tables(statistic: float, degrees: int, tail: float) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(tail, abs=2e-5)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param([1.0] * 5, id="equal"),
        pytest.param([1.0, 2.0, 3.0], id="1,2,3"),
        pytest.param([1.0, 0.5, 0.1], id="1,.5,.1"),
        pytest.param([1.0] * 10 + [5.0], id="10x1+5"),
        pytest.param([1.0, 0.0, 2.0], id="one zero"),
        pytest.param([1.0, 2.0, 4.0] * 10, id="30 of 3 weights"),
    ],
)
def test_a_million_keys_are_distributed_by_weight(weights: Sequence[float]) -> None:
    shares = {f"10.0.0.{n}:11211": weight / sum(weights) for n, weight in enumerate(weights)}
    counts = count_keys(RendezvousRouter(nodes({f"10.0.0.{n}:11211": weight for n, weight in enumerate(weights)})))
    assert counts.total() == KEYS
    assert all(counts[name] == 0 for name, share in shares.items() if not share)
    expected = {name: share * KEYS for name, share in shares.items() if share}
    statistic = sum((counts[name] - mean) ** 2 / mean for name, mean in expected.items())
    assert chi_square_tail(statistic, len(expected) - 1) > 0.01
    for name, mean in expected.items():
        assert abs(counts[name] - mean) <= 4 * math.sqrt(mean * (1 - shares[name])), name


def count_keys(router: RendezvousRouter) -> Counter[str]:
    counts = Counter[str]()
    for start in range(0, KEYS, AT_ONCE):
        shares = router.split([b"user:%d:profile" % number for number in range(start, start + AT_ONCE)])
        counts.update({name: len(indices) for name, indices in shares.items()})
    return counts
