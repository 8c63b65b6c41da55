"""Random streams for Python code: who draws, under which key, and the numbers themselves.

Nothing in pagefleet draws from a global generator. A stream belongs to one (seed, machine,
purpose), which make up its key, and its n-th number is a function of key and n alone. So a
machine draws the same numbers wherever it runs, whatever other machines do, and
a restored machine goes on with the next one.

    key     = [ seed                | machine << 16 | purpose ]     two 64-bit words
    block n = philox4x64-10(counter = [n, 0, 0, 0], key)            four 64-bit words

The key needs no hashing: Philox is a keyed mixing function, and neighbouring keys give
unrelated streams (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
The words are those of ``numpy.random.Philox(key=key)``, whose first block has counter 1.

No numba is imported here, for the sake of the coordinator. ``shared.rng`` has the same
numbers for kernels.
"""

from enum import IntEnum
from typing import Final

WORD_MASK: Final = (1 << 64) - 1
PURPOSE_BITS: Final = 16
MAX_SEED: Final = 2**63 - 1
MAX_MACHINE: Final = 2 ** (63 - PURPOSE_BITS) - 1

# Constants of Philox 4x64 (Random123, philox.h): round multipliers and key increments.
PHILOX_MULTIPLIER_0: Final = 0xD2E7470EE14C6C93
PHILOX_MULTIPLIER_1: Final = 0xCA5A826395121157
PHILOX_WEYL_0: Final = 0x9E3779B97F4A7C15
PHILOX_WEYL_1: Final = 0xBB67AE8584CAA73B
PHILOX_ROUNDS: Final = 10
PHILOX_LANES: Final = 4  # words in a block

# Constants of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
SPLITMIX_GAMMA: Final = 0x9E3779B97F4A7C15
SPLITMIX_MULTIPLIER_0: Final = 0xBF58476D1CE4E5B9
SPLITMIX_MULTIPLIER_1: Final = 0x94D049BB133111EB

Block = tuple[int, int, int, int]


class Purpose(IntEnum):
    """What a stream is for. The values are part of every run's digest: add, never renumber."""

    WORKLOAD = 1  # addresses and operations of a workload
    CONTENT = 2  # what a generated page contains
    REPLAY = 3  # when a replayed image changes its pages
    VARIANT = 4  # what a clone of an image has of its own
    CHECKSUM = 5  # checksums of generated contents
    COMPRESSION = 6  # compressed sizes of generated contents
    DEVICE = 7  # service times of disks
    PLACEMENT = 8  # the coordinator's choices
    TEST = 9  # tests and benchmarks
    ALLOCATION = 10  # who allocates what in a generated allocation trace


def stream_key(seed: int, machine: int, purpose: Purpose) -> tuple[int, int]:
    """Return the Philox key, two words of 0..2**63-1, of one stream; different arguments, different key.

    Raises ``ValueError`` for a seed outside 0..2**63-1 or a machine number outside 0..2**47-1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed: {seed} is outside 0..{MAX_SEED}")
    if not 0 <= machine <= MAX_MACHINE:
        raise ValueError(f"machine: {machine} is outside 0..{MAX_MACHINE}")
    return seed, machine << PURPOSE_BITS | purpose


def philox_block(counter: Block, key: tuple[int, int]) -> Block:
    """Return the four words that Philox 4x64-10 makes of ``counter`` and ``key`` (all 0..2**64-1)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        left = PHILOX_MULTIPLIER_0 * c0
        right = PHILOX_MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (right >> 64) ^ c1 ^ k0,
            right & WORD_MASK,
            (left >> 64) ^ c3 ^ k1,
            left & WORD_MASK,
        )
        k0 = (k0 + PHILOX_WEYL_0) & WORD_MASK
        k1 = (k1 + PHILOX_WEYL_1) & WORD_MASK
    return c0, c1, c2, c3


def splitmix64(seed: int, index: int) -> int:
    """Return the ``index``-th word (from 0) of the splitmix64 generator started at ``seed``."""
    word = (seed + (index + 1) * SPLITMIX_GAMMA) & WORD_MASK
    word = (word ^ word >> 30) * SPLITMIX_MULTIPLIER_0 & WORD_MASK
    word = (word ^ word >> 27) * SPLITMIX_MULTIPLIER_1 & WORD_MASK
    return word ^ word >> 31


class Stream:
    """The numbers of one (seed, machine, purpose), in order."""

    def __init__(self, seed: int, machine: int, purpose: Purpose) -> None:
        self.key = stream_key(seed, machine, purpose)
        self.drawn = 0  # words so far: the whole state
        self._block = (0, 0, 0, 0)

    def word(self) -> int:
        """Draw one of 0..2**64-1."""
        lane = self.drawn % PHILOX_LANES
        if lane == 0:
            block_number = (self.drawn // PHILOX_LANES + 1) & WORD_MASK
            self._block = philox_block((block_number, 0, 0, 0), self.key)
        self.drawn += 1
        return self._block[lane]

    def below(self, bound: int) -> int:
        """Draw one of 0..bound-1, for a bound of 1..2**63; biased by at most bound / 2**64."""
        if not 1 <= bound <= MAX_SEED + 1:
            raise ValueError(f"bound: {bound} is outside 1..{MAX_SEED + 1}")
        return self.word() * bound >> 64
