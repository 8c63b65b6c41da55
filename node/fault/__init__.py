"""Page faults: from an access that the hardware refused to the entry that serves it, or a signal."""
