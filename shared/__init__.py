"""What two folders must agree on: constants, units, random numbers, messages, the state type."""
