"""Read a scenario: YAML, then ``--set`` and ``--seed``, then the models; and word what is wrong in one line.

    file --YAML--> mappings --set_key()--> mappings --Scenario--> frozen models
                                                        |
                                                        +--> "lab.yaml: hosts.0.cpus: 0 is below ..."

YAML is read with the safe loader (it makes plain values only) that also refuses a key given twice.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.config import Scenario
from cluster.errors import InputError, one_line
from shared.units import format_duration, format_size

MAX_FILE_BYTES: Final = 1 << 20
MAX_VALUES: Final = 1_000_000
_UNION_TAGS: Final = {"image", "machine", "workload", "dma", "program", "trace", "preset", "mapping"}


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, place: str) -> Any:  # whatever the text holds
    """Return the plain value of a YAML text; ``InputError`` names ``place`` and the line."""
    try:
        return _without_aliases(yaml.load(text, Loader=_Loader), [MAX_VALUES])  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{place}: {where}{error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{place}: not YAML: {one_line(error)}") from None


def _without_aliases(value: Any, budget: list[int]) -> Any:
    """Copy a value so that no two places share a mapping or list: ``--set`` changes one place only.

    ``budget`` is how many values may still come: aliases of aliases grow exponentially.
    """
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError(f"more than {MAX_VALUES} values, or one that contains itself")
    if isinstance(value, dict):
        return {key: _without_aliases(each, budget) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_aliases(each, budget) for each in value]
    return value


def read_text(path: Path) -> str:
    """Read a small UTF-8 file that the user named."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {size} bytes is above the limit of {MAX_FILE_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or one_line(error)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


def load_scenario(path: Path, settings: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """Read and validate a scenario with the user's ``--set KEY=VALUE`` and ``--seed`` over it.

    Raises ``InputError`` with the file, the key's path, the value and the limit.
    """
    document = parse_yaml(read_text(path), str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: a scenario is a mapping of keys, this is {_kind(document)}")
    places = {}
    for setting in settings:
        places[set_key(document, setting)] = f"--set {setting}"
    if seed is not None:
        document["seed"] = seed
        places["seed"] = f"--seed {seed}"
    return validate_model(Scenario, document, str(path), places)


M = TypeVar("M", bound=BaseModel)


def validate_model(model: type[M], document: object, place: str, places: dict[str, str]) -> M:
    """Validate ``document``; ``places`` maps a key's path to the option that set it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = details[0]
        path = _path(first["loc"])
        guilty = next(
            (option for key, option in places.items() if path == key or path.startswith(f"{key}.")), place
        )
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        what = f"{path}: " if path else ""
        raise InputError(f"{guilty}: {what}{_explain(first, model)}{more}") from None


def set_key(document: dict[Any, Any], setting: str) -> str:
    """Put the value of ``a.0.b=value`` into ``document``, reading the value as YAML; return the key's path.

    Mappings that are absent or null on the way are made; whether the key exists is the models' to say.
    """
    path, equals, text = setting.partition("=")
    if not equals or not all(path.split(".")):
        raise InputError(f"--set {setting}: write it as dotted.key=value")
    value = parse_yaml(text, f"--set {setting}")
    *parents, last = path.split(".")
    here: Any = document
    for depth, key in enumerate(parents):
        place = ".".join(parents[: depth + 1])
        if isinstance(here, list):
            here = here[_index(here, key, setting, place)]
        else:
            if here.get(key) is None:
                here[key] = {}
            here = here[key]
        if not isinstance(here, dict | list):
            raise InputError(f"--set {setting}: {place} is {_kind(here)}, it has no keys")
    if isinstance(here, list):
        here[_index(here, last, setting, path)] = value
    else:
        here[last] = value
    return path


def _index(items: list[Any], key: str, setting: str, place: str) -> int:
    if not key.isascii() or not key.isdigit() or int(key) >= len(items):
        raise InputError(
            f"--set {setting}: {place}: no such entry, the list has {len(items)} (counted from 0)"
        )
    return int(key)


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        str: "text",
        list: "a list",
        bool: "true or false",
        int: "a number",
        dict: "a mapping",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _path(location: tuple[int | str, ...]) -> str:
    """Return the key's path without the names that pydantic adds for the branch of a union.

    ``machine`` is also a key: as a branch it stands right after an index of ``guests``, and the key follows.
    """
    kept: list[str] = []
    for position, part in enumerate(location):
        after_entry = position > 0 and (
            isinstance(location[position - 1], int) or location[position - 1] == "device"
        )
        if part in _UNION_TAGS and after_entry:
            continue
        kept.append(str(part))
    return ".".join(kept)


# By pydantic's name of the error: what to say, with {value} for what was given and {ge} and so on for limits.
_WORDING: Final = {
    "missing": "missing key",
    "greater_than_equal": "{value} is below the minimum of {ge}",
    "greater_than": "{value} is not above {gt}",
    "less_than_equal": "{value} is above the maximum of {le}",
    "less_than": "{value} is not below {lt}",
    "literal_error": "{value} is not one of {expected}",
    "value_error": "{error}",
    "string_pattern_mismatch": "{value} is not a name: letters, digits, '.', '_' and '-', 63 at most",
    "too_short": "{actual_length} entries are fewer than the minimum of {min_length}",
    "too_long": "{actual_length} entries are more than the maximum of {max_length}",
    "int_type": "{value} is not a whole number",
    "string_type": "{value} is not text",
    "bool_type": "{value} is not true or false",
    "tuple_type": "{value} is not a list",
    "dict_type": "{value} is not a mapping of keys",
    "model_type": "{value} is not a mapping of keys",
    "model_attributes_type": "{value} is not a mapping of keys",
}


def _explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Word one pydantic error: the value, and the limit that it passes."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(str(error['loc'][-1]), model)}"
    value = error["input"]
    shown = json.dumps(value) if isinstance(value, str | int | float) else _kind(value)
    wording = _WORDING.get(error["type"], "{value}: {message}")
    limits = {name: _in_units_of(value, limit) for name, limit in error.get("ctx", {}).items()}
    return " ".join(wording.format(value=shown, message=error["msg"], **limits).split())


def _in_units_of(value: object, limit: object) -> object:
    """Write a limit as the value that passes it was written: 16777216 as 16 MiB beside "1MiB"."""
    if isinstance(value, str) and isinstance(limit, int):
        return format_size(limit) if value.endswith("B") else format_duration(limit)
    return limit


def _suggestion(key: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(key, sorted(_all_keys(model)), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _all_keys(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}


def schema_text() -> str:
    """Return the JSON Schema of a scenario, as committed in scenarios/schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
