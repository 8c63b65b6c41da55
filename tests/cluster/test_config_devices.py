"""The key ``devices`` and the workload ``dma``: what becomes of them, and one line for each mistake."""

from pathlib import Path
from typing import Any, get_args

import pytest

from cluster import config_devices
from cluster.errors import InputError
from cluster.plan import make_plan
from cluster.scenario_file import load_scenario
from node.hw.dma_spec import ADDRESS_BITS, BUSES, DIRECTIONS, MAX_SEGMENT_BYTES
from node.spec import DeviceSpec, MachineSpec, WorkSpec
from shared.constants import KIB

TEXT = """
name: lab
duration: 1s
machines:
  - name: box
    memory: 64MiB
    devices:
      - {name: slow, address_bits: 24, bus: stealing, max_segment: 8KiB}
      - {name: quick, address_bits: 64, bus: transparent, clock_mhz: 33, word_bytes: 4, cycles_per_word: 1}
    processes:
      - {workload: dma, device: quick, memory: 64KiB, operations: 2k, direction: to_device, think_ns: 5}
      - {workload: sequential, memory: 64KiB, operations: 1}
"""


def spec_of(folder: Path, text: str, *settings: str) -> dict[str, Any]:
    path = folder / "lab.yaml"
    path.write_text(text)
    return make_plan(load_scenario(path, settings), path).specs[0]


def test_devices_and_transfers_reach_the_machine(tmp_path: Path) -> None:
    spec = MachineSpec.from_dict(spec_of(tmp_path, TEXT))
    assert spec.devices == (
        DeviceSpec("slow", 24, "stealing", max_segment_bytes=8 * KIB),
        DeviceSpec("quick", 64, "transparent", 33, 4, 1),
    )
    assert spec.works[0] == WorkSpec(
        "dma", 64 * KIB, 2000, device=1, direction="to_device", coherent=False, think_ns=5
    )
    assert spec.works[1].workload == "sequential"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("devices.0.address_bits=20", "devices.0.address_bits: 20"),
        ("devices.0.bus=isa", 'devices.0.bus: "isa" is not one of'),
        ("devices.0.name=quick", "devices: 'quick' stands for more than one device"),
        ("devices.0.word_bytes=3", "devices.0.word_bytes: 3"),
        ("devices.0.cpu_free_percent=0", "devices.0.cpu_free_percent: 0"),
        ("devices.0.max_segment=512KiB", 'devices.0.max_segment: "512KiB" is above the maximum of 256 KiB'),
        ("devices.0.max_segments=129", "devices.0.max_segments: 129"),
        ("devices.0.clock=5", "devices.0.clock"),
        ("processes.0.device=fast", "processes.0.device: no device 'fast'; there are slow, quick"),
        ("processes.0.memory=0B", 'processes.0.memory: "0B" is below the minimum of 4 KiB'),
        ("processes.0.memory=100B", 'processes.0.memory: "100B" is below the minimum of 4 KiB'),
        ("processes.0.direction=up", 'processes.0.direction: "up" is not one of'),
        ("processes.0.cpu=1", "processes.0.cpu: 1, but there are 1 CPUs"),
        ("processes.0.write_percent=50", "processes.0.write_percent"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        spec_of(tmp_path, TEXT, f"machines.0.{setting}")
    said = str(caught.value)
    assert "\n" not in said
    assert message in said


def test_a_machine_without_devices_says_so(tmp_path: Path) -> None:
    text = (
        TEXT.replace("    devices:\n", "    swap: null\n")
        .replace("      - {name: slow", "#")
        .replace("      - {name: quick", "#")
    )
    with pytest.raises(InputError, match="no device 'quick'; the machine has none"):
        spec_of(tmp_path, text)


def test_the_keys_agree_with_what_a_machine_takes() -> None:
    fields = config_devices.Device.model_fields
    assert get_args(fields["address_bits"].annotation) == ADDRESS_BITS
    assert get_args(fields["bus"].annotation) == BUSES
    assert get_args(config_devices.Transfers.model_fields["direction"].annotation) == DIRECTIONS
    assert config_devices.MAX_SEGMENT_BYTES == MAX_SEGMENT_BYTES
    assert DeviceSpec(**config_devices.Device(name="d").spec()) == DeviceSpec("d")
