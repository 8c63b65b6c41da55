"""Random numbers for kernels: Philox 4x64-10 for workloads, splitmix64 for hot code.

Both are functions of a key and a number, so a stream's whole state is how many words were
drawn, an integer in some record. Keys come from ``stream_key`` at build time and say who
draws and what for (``shared.streams`` explains, and has the same numbers for plain Python).

    philox_words(key_0, key_1, substream, n)    four good words for 10 rounds of two wide products
    splitmix64_word(seed, n)                    one word for three products and three shifts
    below(word, bound)                          a word as one of 0..bound-1, without a division

Philox's words equal ``numpy.random.Philox(key, counter).random_raw()``. Words are
signed here, as everything in kernels; the bits are what counts.

Reference: Salmon et al., SC 2011 (Philox); Steele, Lea, Flood, OOPSLA 2014 (splitmix64).
"""

from typing import Final

from shared.jit import kernel
from shared.streams import (
    PHILOX_MULTIPLIER_0,
    PHILOX_MULTIPLIER_1,
    PHILOX_ROUNDS,
    PHILOX_WEYL_0,
    PHILOX_WEYL_1,
    SPLITMIX_GAMMA,
    SPLITMIX_MULTIPLIER_0,
    SPLITMIX_MULTIPLIER_1,
    Block,
    Purpose,
    Stream,
    stream_key,
)
from shared.wrap64 import add64, mul64, mul_high64, to_signed, xor_shift_right

__all__ = [
    "Block",
    "Purpose",
    "Stream",
    "below",
    "mix64",
    "philox4x64_block",
    "philox_words",
    "splitmix64_word",
    "stream_key",
    "substream_seed",
]

# A literal over 2**63 would be uint64 in compiled code, and mixing it with int64 gives a float.
_MULTIPLIER_0: Final = to_signed(PHILOX_MULTIPLIER_0)
_MULTIPLIER_1: Final = to_signed(PHILOX_MULTIPLIER_1)
_WEYL_0: Final = to_signed(PHILOX_WEYL_0)
_WEYL_1: Final = to_signed(PHILOX_WEYL_1)
_GAMMA: Final = to_signed(SPLITMIX_GAMMA)
_MIX_0: Final = to_signed(SPLITMIX_MULTIPLIER_0)
_MIX_1: Final = to_signed(SPLITMIX_MULTIPLIER_1)
_MIX_SHIFT_0: Final = 30
_MIX_SHIFT_1: Final = 27
_MIX_SHIFT_2: Final = 31


@kernel
def philox_words(key_0: int, key_1: int, substream: int, block: int) -> Block:
    """Return the ``block``-th four words (from 0) of a substream (a process, a CPU) of a key's stream.

    Substream 0 is what ``Stream`` draws; the others are as long and no block of theirs has its counter.
    Equals ``random_raw()`` of ``numpy.random.Philox(key=[key_0, key_1], counter=[0, substream, 0, 0])``.
    """
    return philox4x64_block(key_0, key_1, add64(block, 1), substream)


@kernel
def philox4x64_block(key_0: int, key_1: int, counter_0: int, counter_1: int) -> Block:
    """Return the four words that Philox 4x64-10 makes of a key and a counter whose upper words are 0."""
    c0, c1, c2, c3 = counter_0, counter_1, 0, 0
    for _ in range(PHILOX_ROUNDS):
        left_high = mul_high64(c0, _MULTIPLIER_0)
        left_low = mul64(c0, _MULTIPLIER_0)
        right_high = mul_high64(c2, _MULTIPLIER_1)
        right_low = mul64(c2, _MULTIPLIER_1)
        c0 = right_high ^ c1 ^ key_0
        c1 = right_low
        c2 = left_high ^ c3 ^ key_1
        c3 = left_low
        key_0 = add64(key_0, _WEYL_0)
        key_1 = add64(key_1, _WEYL_1)
    return c0, c1, c2, c3


@kernel
def mix64(word: int) -> int:
    """Scramble ``word`` one-to-one: neighbours give unrelated words (splitmix64's finalizer)."""
    word = mul64(xor_shift_right(word, _MIX_SHIFT_0), _MIX_0)
    word = mul64(xor_shift_right(word, _MIX_SHIFT_1), _MIX_1)
    return xor_shift_right(word, _MIX_SHIFT_2)


@kernel
def splitmix64_word(seed: int, index: int) -> int:
    """Return the ``index``-th word (from 0) of the splitmix64 generator started at ``seed``."""
    return mix64(add64(seed, mul64(add64(index, 1), _GAMMA)))


@kernel
def substream_seed(key_0: int, key_1: int, substream: int) -> int:
    """Return the splitmix64 seed of a substream of a key's stream.

    It comes from the block with counter 0, which ``philox_words`` never draws from.
    """
    words = philox4x64_block(key_0, key_1, 0, substream)
    return words[0]


@kernel
def below(word: int, bound: int) -> int:
    """Return one of 0..bound-1, ``word`` scaled down to ``bound``; biased by at most bound / 2**64."""
    return mul_high64(word, bound)
