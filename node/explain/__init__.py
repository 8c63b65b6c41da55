"""What ``pagefleet explain`` tells: a translation step by step, read from the machine that then makes it."""
