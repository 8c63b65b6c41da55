"""Settings that all tests share."""

import os

# Before any kernel is decorated: lets tests call single kernels, which compiled programs cannot.
os.environ.setdefault("PAGEFLEET_WRAPPERS", "1")

from hypothesis import settings

# Examples are the same in every run, and their time does not count: the first one may compile kernels, and
# uncompiled runs are slow.
settings.register_profile("pagefleet", deadline=None, derandomize=True)
settings.load_profile("pagefleet")
