from pathlib import Path

import pytest

from cluster.errors import InputError
from cluster.ray_config import DEFAULT_FILE, load_ray_config


def test_the_projects_settings_are_valid() -> None:
    config = load_ray_config()
    assert (config.address, config.max_restarts, config.max_task_retries) == (None, -1, 0)
    assert config.start_timeout == 60 * 10**9


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("max_task_retries: 0", "max_task_retries: 1"), "max_task_retries: 1 is above the maximum of 0"),
        (("start_timeout: 60s", "start_timeout: 60"), "start_timeout: 60 has no unit: write it as 20ms"),
        (
            ("object_store_memory: 256MiB", "object_store_memory: 1MiB"),
            'object_store_memory: "1MiB" is below the minimum of 75 MiB',
        ),
        (("call_timeout", "call_timout"), "call_timeout: missing key (and 1 more)"),
        (("max_restarts: -1", "max_restarts: -1\nepoch: 5ms"), "epoch: unknown key"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    path = tmp_path / "ray_config.yaml"
    path.write_text(DEFAULT_FILE.read_text().replace(*change))
    with pytest.raises(InputError) as caught:
        load_ray_config(path)
    assert str(caught.value) == f"{path}: {expected}"
