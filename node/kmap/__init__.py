"""The kernel's own address space: its memory map, its page table, KPTI, and when Linux flushes a TLB."""
