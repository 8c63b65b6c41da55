"""What a system call returns when it fails, negative as inside the kernel (include/uapi/asm-generic/errno-base.h)."""

from enum import IntEnum


class Errno(IntEnum):
    """Linux's error numbers, negated."""

    EPERM = -1
    ENOENT = -2
    EAGAIN = -11
    ENOMEM = -12
    EACCES = -13
    EFAULT = -14
    EEXIST = -17
    EINVAL = -22
    ENOSPC = -28
    EIDRM = -43
    EOVERFLOW = -75
