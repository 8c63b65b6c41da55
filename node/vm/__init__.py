"""Virtual memory: address spaces, page faults, fork and reverse mapping."""
