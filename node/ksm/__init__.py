"""Kernel same-page merging: ksmd, its two trees, and what undoes a merge."""
