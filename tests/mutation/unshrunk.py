"""A plugin of pytest for seeded faults: the first failing example is enough, nobody needs a smaller one."""

from hypothesis import Phase, settings


def pytest_sessionstart() -> None:
    """Let hypothesis stop where it finds a failure, with the project's other settings as they are."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("unshrunk", settings.get_profile("pagefleet"), phases=phases, database=None)
    settings.load_profile("unshrunk")
