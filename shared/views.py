"""What a guest may do with one of its frames: a word of the hardware model and of the messages to and from hosts."""

from enum import IntEnum


class View(IntEnum):
    """What a guest may do with a frame without asking its host: a byte of the EPT view."""

    UNTOUCHED = 0
    SWAPPED = 1
    READ_ONLY = 2
    WRITABLE = 3
