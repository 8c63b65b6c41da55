"""Benchmarks: each mechanism's speed beside a C twin of the same algorithm, compile cost, and memory."""
