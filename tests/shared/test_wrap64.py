"""Wrapping 64-bit arithmetic, against Python's unbounded integers; the same compiled and not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.constants import INT64_MAX, INT64_MIN
from shared.jit import entry
from shared.kernel_state import Counters, KernelState, table
from shared.wrap64 import (
    add64,
    mul64,
    mul_high64,
    rotate_left64,
    shift_left64,
    shift_right64,
    to_signed,
    to_unsigned,
    xor_shift_right,
)

pytestmark = pytest.mark.three_ways

MASK = 2**64 - 1
EDGES = [0, 1, -1, INT64_MAX, INT64_MIN, 2**32 - 1, 2**32, -(2**32), 0x1234_5678_9ABC_DEF0]
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(INT64_MIN, INT64_MAX))
BITS = st.integers(1, 63)


class Scratch(KernelState):
    """Where kernels leave their results."""

    panic: Counters = table(np.int64)
    result: Counters = table(np.int64)


@entry
def products(state: Scratch, a: int, b: int) -> None:
    """Leave a + b, a * b and the high half of a * b."""
    state.result[0] = add64(a, b)
    state.result[1] = mul64(a, b)
    state.result[2] = mul_high64(a, b)


@entry
def shifts(state: Scratch, word: int, bits: int) -> None:
    """Leave ``word`` shifted left, right, right and xored, rotated."""
    state.result[0] = shift_left64(word, bits)
    state.result[1] = shift_right64(word, bits)
    state.result[2] = xor_shift_right(word, bits)
    state.result[3] = rotate_left64(word, bits)


STATE = Scratch(panic=3, result=4)


def unsigned_results() -> list[int]:
    return [to_unsigned(STATE.result[i]) for i in range(4)]


@given(WORDS, WORDS)
def test_sums_and_products_wrap(a: int, b: int) -> None:
    products(STATE, a, b)
    ua, ub = a & MASK, b & MASK
    assert unsigned_results()[:3] == [(ua + ub) & MASK, (ua * ub) & MASK, ua * ub >> 64]


@given(WORDS, BITS)
def test_shifts_fill_with_zeroes(word: int, bits: int) -> None:
    shifts(STATE, word, bits)
    left, right = (word << bits) & MASK, (word & MASK) >> bits
    assert unsigned_results() == [left, right, (word & MASK) ^ right, left | (word & MASK) >> (64 - bits)]


@given(WORDS)
def test_signed_and_unsigned_readings_are_inverse(word: int) -> None:
    assert 0 <= to_unsigned(word) <= MASK
    assert to_signed(to_unsigned(word)) == word
