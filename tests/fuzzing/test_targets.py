"""The targets of `make fuzz`, for seconds: the inputs of the repository, changed ones, and random bytes."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing.targets import CORPUS, TARGETS, seeds
from tests.fuzzing.mutations import mutated

LARGEST: Final = 10_000  # bytes of the inputs of one target


@pytest.mark.parametrize("name", TARGETS)
def test_the_inputs_of_the_repository_are_there_and_small(name: str) -> None:
    inputs = seeds(name)
    assert len(inputs) >= 3
    assert sum(map(len, inputs)) < LARGEST
    for data in inputs:
        TARGETS[name](data)


def test_every_folder_of_inputs_has_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_no_input_finds_a_fault(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(st.binary(max_size=400) | mutated(seeds(name))))
