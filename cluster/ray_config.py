"""ray_config.yaml: how Ray is started and used. Nothing in it changes a result."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from cluster.config_values import Bytes, Duration, Strict
from cluster.errors import InputError
from cluster.scenario_file import parse_yaml, read_text, validate_model
from shared.constants import MIB, NS_PER_MS

DEFAULT_FILE: Final = Path(__file__).resolve().parent.parent / "ray_config.yaml"
_Wait = Annotated[Duration, Field(ge=NS_PER_MS)]


class RayConfig(Strict):
    """Ray's own settings; null leaves one to Ray."""

    address: str | None = None
    num_cpus: int | None = Field(None, ge=1)
    object_store_memory: Annotated[Bytes, Field(ge=75 * MIB)] | None = None
    include_dashboard: bool = False
    actor_num_cpus: int = Field(0, ge=0)
    actor_memory: Annotated[Bytes, Field(ge=1)] | None = None
    max_restarts: int = Field(-1, ge=-1)
    max_task_retries: int = Field(0, ge=0, le=0)
    """Ray's own retries reorder calls; the coordinator replays them in order."""
    start_timeout: _Wait
    call_timeout: _Wait
    restart_timeout: _Wait
    health_check_period: _Wait
    health_check_timeout: _Wait
    health_check_failure_threshold: int = Field(ge=1)


def load_ray_config(path: Path = DEFAULT_FILE) -> RayConfig:
    """Read and validate Ray's settings. Raises ``InputError`` that names file, key, value and limit."""
    document = parse_yaml(read_text(path), str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: Ray's settings are a mapping of keys")
    return validate_model(RayConfig, document, str(path), {})
