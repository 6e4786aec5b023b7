"""A hypothesis strategy for inputs that are nearly right: one of some inputs, with a few pieces replaced."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, inputs: Sequence[bytes]) -> bytes:
    """Return one of *inputs* with up to three pieces replaced by other bytes, or by a piece of another input."""
    data = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 8)))
        other = draw(st.binary(max_size=6) | st.sampled_from([b"\r\n", b" ", b"O1", b"-", *inputs]))
        data = data[:start] + other[:40] + data[stop:]
    return data
