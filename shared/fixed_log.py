"""Logarithms and exponential waiting times in integers: the same bits compiled, uncompiled, everywhere.

A float's logarithm comes from the C library and may differ in its last bit from machine to machine, so
kernels take this one. It is the schoolbook method. The position of the highest bit is the integer part.
What is left, m in [1, 2), is squared again and again: log2(m**2) = 2 log2(m), so each squaring that passes 2
says that the next bit of the fraction is 1.

    log2(10) = 3 + log2(1.25)     1.25**2 = 1.5625 -> 0     1.5625**2 = 2.44 -> 1, go on with 1.22 ...
             = 3 + 0.0101..b
"""

from typing import Final

from shared.constants import INT64_MAX
from shared.jit import kernel
from shared.wrap64 import mul_high64, shift_left64

LOG_BITS: Final = 24  # of the fraction of a logarithm
_MANTISSA_BITS: Final = 30  # of the fraction of m; m**2 then fits in 62 bits
_TWO: Final = 2 << _MANTISSA_BITS
_WIDEST_STEP: Final = 32
_RANDOM_BITS: Final = 63
_ALL_BITS: Final = _RANDOM_BITS << LOG_BITS
# mul_high64 divides by 2**64; the product of a wait and a logarithm is to be divided by 2**LOG_BITS.
_LOG_SHIFT: Final = 34
_WAIT_SHIFT: Final = 64 - LOG_BITS - _LOG_SHIFT
MAX_WAIT: Final = 1 << (64 - _WAIT_SHIFT - 1)


@kernel
def log2_fixed(value: int) -> int:
    """Return log2 of ``value`` (1..2**63-1) in units of 2**-24, rounded down: less than 2**-23 too low.

    2**-24 is the last bit; the truncated squares add less than 2**-27 (each is 2**-30 too low at most and
    counts half as much as the one before).
    """
    exponent = 0
    rest = value
    step = _WIDEST_STEP
    while step > 0:
        if rest >> step:
            rest >>= step
            exponent += step
        step >>= 1
    excess = exponent - _MANTISSA_BITS
    mantissa = value >> excess if excess > 0 else value << -excess
    fraction = 0
    for _ in range(LOG_BITS):
        mantissa = (mantissa * mantissa) >> _MANTISSA_BITS
        fraction <<= 1
        if mantissa >= _TWO:
            mantissa >>= 1
            fraction |= 1
    return (exponent << LOG_BITS) | fraction


@kernel
def exponential(word: int, wait_per_bit: int) -> int:
    """Return a waiting time: ``wait_per_bit`` times -log2 of the uniform number that ``word`` stands for.

    Its mean is ``wait_per_bit`` / ln 2. ``word`` is any 64 random bits, ``wait_per_bit`` is 0..2**57-1. The
    uniform number has 63 bits, so no wait is above 63 times ``wait_per_bit``; it is at least 1.
    """
    uniform = max(1, (word >> 1) & INT64_MAX)
    bits = _ALL_BITS - log2_fixed(uniform)
    return max(1, mul_high64(wait_per_bit << _WAIT_SHIFT, shift_left64(bits, _LOG_SHIFT)))
