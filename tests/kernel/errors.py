"""What can go wrong while a workload is recorded, each in one line."""


class RecordError(ValueError):
    """Something that is wrong before a machine boots: a missing tool, a workload that does not parse."""


class BootError(RuntimeError):
    """A machine that did not get to the end of its workload."""
