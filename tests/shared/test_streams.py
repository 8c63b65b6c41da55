"""Random streams in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.streams import (
    MAX_MACHINE,
    MAX_SEED,
    WORD_MASK,
    Block,
    Purpose,
    Stream,
    philox_block,
    splitmix64,
    stream_key,
)

WORDS = st.integers(0, WORD_MASK)


@given(st.tuples(WORDS, WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_philox_equals_numpys(counter: Block, key: tuple[int, int]) -> None:
    theirs = np.random.Philox(counter=np.array(counter, np.uint64), key=np.array(key, np.uint64))
    # numpy steps its 256-bit counter before it makes the first block.
    number = sum(word << 64 * i for i, word in enumerate(counter)) + 1
    stepped = tuple(number >> 64 * i & WORD_MASK for i in range(4))
    assert philox_block(stepped, key) == tuple(map(int, theirs.random_raw(4)))  # type: ignore[arg-type]


def test_a_streams_words_are_numpys_in_order() -> None:
    stream = Stream(seed=7, machine=3, purpose=Purpose.WORKLOAD)
    theirs = np.random.Philox(key=np.array(stream.key, np.uint64))
    assert [stream.word() for _ in range(10)] == list(map(int, theirs.random_raw(10)))


def test_splitmix64_gives_the_published_words() -> None:
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [splitmix64(1234567, index) for index in range(5)] == published


def test_streams_of_other_machines_and_purposes_have_other_keys() -> None:
    keys = {
        stream_key(seed, machine, purpose)
        for seed in (0, 1, MAX_SEED)
        for machine in (0, 1, MAX_MACHINE)
        for purpose in Purpose
    }
    assert len(keys) == 3 * 3 * len(Purpose)
    assert all(0 <= word <= MAX_SEED for key in keys for word in key)


@pytest.mark.parametrize(("seed", "machine"), [(-1, 0), (MAX_SEED + 1, 0), (0, -1), (0, MAX_MACHINE + 1)])
def test_a_seed_or_machine_out_of_range_is_refused(seed: int, machine: int) -> None:
    with pytest.raises(ValueError, match="is outside 0"):
        stream_key(seed, machine, Purpose.TEST)


@given(st.integers(1, 2**63))
def test_below_stays_below(bound: int) -> None:
    stream = Stream(seed=bound % MAX_SEED, machine=0, purpose=Purpose.TEST)
    assert all(0 <= stream.below(bound) < bound for _ in range(8))


def test_below_is_even() -> None:
    stream = Stream(seed=1, machine=0, purpose=Purpose.TEST)
    counts = np.bincount([stream.below(5) for _ in range(5000)], minlength=5)
    # Four standard deviations of a binomial count around 1000.
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(5000 * 0.2 * 0.8))


@pytest.mark.parametrize("bound", [0, -1, 2**63 + 1])
def test_a_bound_out_of_range_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match=r"bound: .* is outside 1"):
        Stream(seed=1, machine=0, purpose=Purpose.TEST).below(bound)
