"""Logarithms and waiting times in integers, against floating point."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.constants import INT64_MAX, INT64_MIN
from shared.fixed_log import LOG_BITS, MAX_WAIT, exponential, log2_fixed
from shared.jit import entry
from shared.kernel_state import Counters, KernelState, table
from shared.streams import splitmix64
from shared.wrap64 import to_signed

pytestmark = pytest.mark.three_ways

UNIT = 2**LOG_BITS


class Scratch(KernelState):
    """Nothing but a place for a panic."""

    panic: Counters = table(np.int64)


@entry
def log2_of(state: Scratch, value: int) -> int:
    """Return log2_fixed."""
    return log2_fixed(value)


@entry
def wait_of(state: Scratch, word: int, wait_per_bit: int) -> int:
    """Return exponential."""
    return exponential(word, wait_per_bit)


STATE = Scratch(panic=4)


@given(st.one_of(st.integers(1, INT64_MAX), st.integers(1, 5000)))
def test_a_logarithm_is_less_than_2_to_minus_23_too_low(value: int) -> None:
    exact = math.log2(value)
    error = exact - log2_of(STATE, value) / UNIT
    rounding_of_floats = 2**-46
    assert -rounding_of_floats <= error < 2**-23


def test_powers_of_two_are_exact() -> None:
    for exponent in range(63):
        assert log2_of(STATE, 1 << exponent) == exponent * UNIT


@given(st.integers(INT64_MIN, INT64_MAX), st.integers(0, MAX_WAIT - 1))
def test_a_wait_is_the_logarithm_of_a_uniform_number(word: int, wait_per_bit: int) -> None:
    uniform = max(1, (word % 2**64) >> 1) / 2**63
    exact = wait_per_bit * -math.log2(uniform)
    assert wait_of(STATE, word, wait_per_bit) == pytest.approx(exact, rel=1e-9, abs=1 + wait_per_bit * 2**-22)


def test_waits_are_distributed_exponentially() -> None:
    words = [to_signed(splitmix64(9, index)) for index in range(4000)]
    waits = np.array([wait_of(STATE, word, 1_000_000) for word in words])
    mean = 1_000_000 / math.log(2)
    assert waits.mean() == pytest.approx(mean, rel=0.03)
    assert (waits > mean).mean() == pytest.approx(math.exp(-1), abs=0.02)
    assert waits.min() >= 1
