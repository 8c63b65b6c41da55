"""64-bit arithmetic that wraps, the same compiled and as plain Python.

Kernels have one integer type, signed int64. A sum or product that leaves its range is undefined in compiled
code (numba tells LLVM that none does), and in Python it grows. Hashes and random numbers need the wrapping: they
add and multiply with ``add64`` and ``mul64``, which are single instructions that wrap, and in Python fold the result
back into -2**63 .. 2**63 - 1.

The bits are those of unsigned arithmetic; only their reading is signed:

    unsigned   0 ... 2**63-1   2**63 ... 2**64-1
    signed     0 ... 2**63-1  -2**63 ... -1
"""

from typing import Any, ClassVar, Final

from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin

from shared.constants import INT64_MAX, INT64_MIN
from shared.jit import COMPILED, kernel

SIGN_SHIFT: Final = 63
HALF_SHIFT: Final = 32
LOW_HALF: Final = (1 << HALF_SHIFT) - 1
_TWO_TO_64: Final = 1 << 64


def to_signed(word: int) -> int:
    """Return the signed reading of a 64-bit pattern 0 .. 2**64 - 1 (Python only, no kernel)."""
    return word - _TWO_TO_64 if word > INT64_MAX else word


def to_unsigned(word: int) -> int:
    """Return the unsigned reading of a signed 64-bit value (Python only, no kernel)."""
    return word % _TWO_TO_64


@kernel
def _wrap64(value: int) -> int:
    """Keep the low 64 bits of ``value``, read as signed; compiled, the identity."""
    # Neither half of this sum overflows, so it is right with and without wrapping.
    return (value & INT64_MAX) + ((value >> SIGN_SHIFT) & 1) * INT64_MIN


def add64(a: int, b: int) -> int:
    """Return the low 64 bits of ``a + b``."""
    return _fold(a + b)


def mul64(a: int, b: int) -> int:
    """Return the low 64 bits of ``a * b``."""
    return _fold(a * b)


def _fold(value: int) -> int:
    return to_signed(value % _TWO_TO_64)


if COMPILED:

    class _OfTwoWords(ConcreteTemplate):
        cases: ClassVar = [signature(types.int64, types.int64, types.int64)]

    infer_global(add64)(type("_Add", (_OfTwoWords,), {}))
    infer_global(mul64)(type("_Mul", (_OfTwoWords,), {}))

    @lower_builtin(add64, types.int64, types.int64)
    def _lower_add(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.add(*args)

    @lower_builtin(mul64, types.int64, types.int64)
    def _lower_mul(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        return builder.mul(*args)


@kernel
def shift_left64(word: int, bits: int) -> int:
    """Return the low 64 bits of ``word << bits``; ``bits`` in 0..63."""
    return _wrap64(word << bits)


@kernel
def shift_right64(word: int, bits: int) -> int:
    """Shift ``word`` right, filling with zeroes (``>>`` copies the sign); ``bits`` in 1..63."""
    return (word >> bits) & (INT64_MAX >> (bits - 1))


@kernel
def rotate_left64(word: int, bits: int) -> int:
    """Rotate ``word`` left; ``bits`` in 1..63."""
    return shift_left64(word, bits) | shift_right64(word, 64 - bits)


@kernel
def xor_shift_right(word: int, bits: int) -> int:
    """Return ``word ^ (word >> bits)`` with zeroes shifted in; ``bits`` in 1..63."""
    return word ^ shift_right64(word, bits)


@kernel
def mul_high64(a: int, b: int) -> int:
    """Return the high 64 bits of the 128-bit product of ``a`` and ``b``, both read as unsigned.

    Long multiplication with 32-bit digits. No sum of two terms below exceeds 64 bits:
    (2**32 - 1)**2 + 2 * (2**32 - 1) = 2**64 - 1.

                        a_high  a_low
                x       b_high  b_low
        -----------------------------
                         low x low        -> carry: its upper digit
                  high x low              + carry          = middle
                  low x high              + middle's lower = cross
        high x high                       + middle's and cross's upper
    """
    a_low = a & LOW_HALF
    a_high = shift_right64(a, HALF_SHIFT)
    b_low = b & LOW_HALF
    b_high = shift_right64(b, HALF_SHIFT)
    carry = shift_right64(mul64(a_low, b_low), HALF_SHIFT)
    middle = add64(mul64(a_high, b_low), carry)
    cross = add64(mul64(a_low, b_high), middle & LOW_HALF)
    upper = add64(shift_right64(middle, HALF_SHIFT), shift_right64(cross, HALF_SHIFT))
    return add64(mul64(a_high, b_high), upper)
