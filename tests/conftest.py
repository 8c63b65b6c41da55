"""Settings that all tests share."""

from hypothesis import settings

# Examples are the same in every run, and their time does not count: the first one may compile kernels, and
# uncompiled runs are slow.
settings.register_profile("pagefleet", deadline=None, derandomize=True)
settings.load_profile("pagefleet")
