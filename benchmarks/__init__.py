"""Benchmarks: each mechanism's speed beside a C twin of the same algorithm, what compiling costs, and memory."""
