"""Swap areas, their slots, the swap cache, and the way out and back in."""
