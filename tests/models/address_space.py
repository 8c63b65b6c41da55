"""Processes and their memory, with nothing shared and nothing lazy: a dict from page number to a byte.

A page that was mapped but never written reads as zero. fork copies everything.
"""

from dataclasses import dataclass, field


@dataclass
class AddressSpace:
    """One process: which pages are mapped and touched, and the first byte of each that was written."""

    mapped: set[int] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)  # read or written since they were mapped
    written: dict[int, int] = field(default_factory=dict)

    def map(self, first: int, nr_pages: int) -> None:
        """Map pages that were not."""
        self.mapped |= set(range(first, first + nr_pages))

    def unmap(self, first: int, nr_pages: int) -> int:
        """Forget pages; return how many were touched."""
        gone = set(range(first, first + nr_pages))
        nr_touched = len(gone & self.touched)
        self.mapped -= gone
        self.touched -= gone
        self.written = {vpn: byte for vpn, byte in self.written.items() if vpn not in gone}
        return nr_touched

    def access(self, vpn: int, byte: int | None) -> bool:
        """Read (byte None) or write; return whether it is allowed."""
        if vpn not in self.mapped:
            return False
        self.touched.add(vpn)
        if byte is not None:
            self.written[vpn] = byte
        return True

    def fork(self) -> "AddressSpace":
        """Return a copy. An area that never had a page of its own is not copied entry by entry."""
        return AddressSpace(set(self.mapped), set(self.written), dict(self.written))
