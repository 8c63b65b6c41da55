"""What a scenario may say of allocation traces: a pattern of scenarios/alloc_patterns.py, or a recorded file."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from cluster.config_values import MAX_CPUS, MAX_ENTRIES, MAX_INT, MAX_SEED, Count, Strict
from scenarios.alloc_patterns import DEFAULT_LIVE, PATTERNS
from scenarios.alloc_producer_consumer import MIN_CPUS
from shared.alloc_kind import MAX_EVENTS
from shared.constants import NS_PER_S

DEFAULT_OPERATIONS: Final = 1_000_000
_GENERATED_ONLY: Final = ("operations", "cpus", "live", "trace_seed")

Allocator = Literal["slub", "slab", "slob"]
SlobPolicy = Literal["one-list", "three-lists", "best-fit"]
SlabDebug = Annotated[str, Field(pattern="^[FZPU]{0,4}$")]


class Allocations(Strict):
    """What the kernel allocates and frees, as an allocation trace says."""

    allocations: str = Field(min_length=1, max_length=4096)
    """short-lived, producer-consumer, network, page-tables, fragmenting or checkerboard, which are generated; or a
    file, .npz or .csv, in scenarios/data/traces or by its path from the scenario's folder."""
    operations: Annotated[Count, Field(ge=1, le=MAX_EVENTS)] = DEFAULT_OPERATIONS
    """Allocations and frees together. A file has its own number."""
    cpus: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=MAX_CPUS)], ...],
        Field(strict=False, min_length=1, max_length=MAX_ENTRIES),
    ] = (0,)
    """On which it happens; producer-consumer needs two. A file has its own."""
    live: Annotated[Count, Field(ge=1, le=MAX_EVENTS)] | None = None
    """Objects that are allocated at a time, on average; null: what suits the pattern. A file has its own."""
    trace_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Machines and processes with the same number have the same trace; null: each has its own. A file needs none."""
    loops: Annotated[Count, Field(le=MAX_INT)] = 1
    """How often the trace is replayed; 0: without end. Between two times, what it left is freed."""
    think_ns: int = Field(0, ge=0, le=NS_PER_S)
    """Time of the callers between two operations of a CPU."""

    @property
    def is_generated(self) -> bool:
        """Whether this is a pattern, not a file."""
        return self.allocations in PATTERNS

    @property
    def nr_live(self) -> int:
        """Objects that a pattern keeps allocated."""
        return DEFAULT_LIVE[self.allocations] if self.live is None else self.live

    @model_validator(mode="after")
    def _keys_belong_together(self) -> Self:
        said = [key for key in _GENERATED_ONLY if key in self.model_fields_set]
        if said and not self.is_generated:
            raise ValueError(
                f"{said[0]}: {self.allocations!r} is none of {', '.join(PATTERNS)}, and a file has its own"
            )
        for cpu in self.cpus:
            if self.cpus.count(cpu) > 1:
                raise ValueError(f"cpus: {cpu} stands there twice")
        if self.allocations == "producer-consumer" and len(self.cpus) < MIN_CPUS:
            raise ValueError(f"cpus: producer-consumer needs {MIN_CPUS}, not {len(self.cpus)}")
        return self
