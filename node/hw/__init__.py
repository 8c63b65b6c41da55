"""What the processor does: page-table entries, page tables, TLBs, the walk, device time and its costs."""
