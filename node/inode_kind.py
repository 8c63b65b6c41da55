"""What an inode is of: told apart by where its pages go when memory is short."""

from enum import IntEnum


class InodeKind(IntEnum):
    """What an inode is of."""

    REGULAR = 0
    SHMEM = 1
    RAMFS = 2  # a file system that lives in memory: its pages can go nowhere
