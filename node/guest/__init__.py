"""A guest of a host: the EPT view, image replay, and both sides of the epoch protocol."""
