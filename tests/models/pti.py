"""What KPTI's pair of top-level tables holds, with two Python lists and no shared bits."""

PRESENT_AND_USER = 5
NX = -(2**63)


class PairModel:
    """A process's two top-level tables beside the master's."""

    def __init__(self, kernel_index: int, pti: bool, master: list[int], master_user: list[int]) -> None:
        self.kernel_index = kernel_index
        self.pti = pti
        nothing = [0] * kernel_index
        self.kernel_copy = nothing + master[kernel_index:]
        self.user_copy = nothing + master_user[kernel_index:]

    def set(self, index: int, word: int) -> None:
        """Write an entry as the kernel does."""
        is_user_space = index < self.kernel_index
        if self.pti and is_user_space:
            self.user_copy[index] = word
        poisoned = self.pti and is_user_space and word & PRESENT_AND_USER == PRESENT_AND_USER
        self.kernel_copy[index] = word | NX if poisoned else word
