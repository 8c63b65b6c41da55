"""Random numbers in kernels, against numpy's Philox and the plain-Python splitmix64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.constants import INT64_MAX, INT64_MIN
from shared.jit import entry
from shared.kernel_state import Counters, KernelState, table
from shared.rng import (
    Purpose,
    Stream,
    below,
    mix64,
    philox_words,
    splitmix64_word,
    stream_key,
    substream_seed,
)
from shared.streams import philox_block, splitmix64
from shared.wrap64 import to_unsigned

pytestmark = pytest.mark.three_ways

WORDS = st.integers(INT64_MIN, INT64_MAX)
NATURALS = st.integers(0, INT64_MAX)


class Scratch(KernelState):
    """Where kernels leave their results."""

    panic: Counters = table(np.int64)
    result: Counters = table(np.int64)


@entry
def draw_philox(state: Scratch, key_0: int, key_1: int, substream: int, block: int) -> None:
    """Leave one block of a stream."""
    words = philox_words(key_0, key_1, substream, block)
    state.result[0] = words[0]
    state.result[1] = words[1]
    state.result[2] = words[2]
    state.result[3] = words[3]


@entry
def draw_splitmix(state: Scratch, seed: int, index: int, bound: int) -> None:
    """Leave a word of splitmix64, and the word scaled to ``bound``."""
    state.result[0] = splitmix64_word(seed, index)
    state.result[1] = below(state.result[0], bound)
    state.result[2] = mix64(seed)


@entry
def draw_seed(state: Scratch, key_0: int, key_1: int, substream: int) -> int:
    """Return the seed of a substream."""
    return substream_seed(key_0, key_1, substream)


STATE = Scratch(panic=3, result=4)


def unsigned_results() -> list[int]:
    return [to_unsigned(STATE.result[i]) for i in range(4)]


@given(WORDS, WORDS, NATURALS, st.one_of(st.sampled_from([0, INT64_MAX - 1]), NATURALS))
def test_philox_in_a_kernel_equals_numpys(key_0: int, key_1: int, substream: int, block: int) -> None:
    draw_philox(STATE, key_0, key_1, substream, block)
    key = np.array([to_unsigned(key_0), to_unsigned(key_1)], np.uint64)
    theirs = np.random.Philox(key=key, counter=np.array([block, substream, 0, 0], np.uint64))
    assert unsigned_results() == list(map(int, theirs.random_raw(4)))


def test_kernels_draw_what_a_stream_in_python_draws() -> None:
    stream = Stream(seed=11, machine=2, purpose=Purpose.REPLAY)
    for block in range(3):
        draw_philox(STATE, *stream_key(11, 2, Purpose.REPLAY), 0, block)
        assert unsigned_results() == [stream.word() for _ in range(4)]


@given(WORDS, NATURALS)
def test_splitmix64_in_a_kernel_equals_the_plain_one(seed: int, index: int) -> None:
    draw_splitmix(STATE, seed, index, 1)
    assert unsigned_results()[0] == splitmix64(to_unsigned(seed), index)


@given(WORDS)
def test_mix64_is_splitmix64_one_step_back(word: int) -> None:
    draw_splitmix(STATE, word, 0, 1)
    mixed = unsigned_results()[2]
    before = to_unsigned(word) - 0x9E3779B97F4A7C15
    assert mixed == splitmix64(before, 0)


@given(WORDS, NATURALS, st.integers(1, INT64_MAX))
def test_below_scales_a_word(seed: int, index: int, bound: int) -> None:
    draw_splitmix(STATE, seed, index, bound)
    word, scaled = unsigned_results()[:2]
    assert scaled == word * bound >> 64
    assert scaled < bound


@given(WORDS, WORDS, NATURALS)
def test_a_substreams_seed_is_a_word_no_one_draws(key_0: int, key_1: int, substream: int) -> None:
    seed = draw_seed(STATE, key_0, key_1, substream)
    key = (to_unsigned(key_0), to_unsigned(key_1))
    assert to_unsigned(seed) == philox_block((0, substream, 0, 0), key)[0]
