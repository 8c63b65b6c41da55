"""What a scenario may say of a machine's NUMA nodes and zones."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from cluster.config_values import MAX_INT, Strict
from node.spec import MAX_DISTANCE, MAX_NODES, check_distances

Ratio = Annotated[int, Field(ge=0, le=MAX_INT)]
LowmemReserveRatio = Annotated[tuple[Ratio, Ratio, Ratio, Ratio, Ratio], Field(strict=False)]
Distance = Annotated[int, Field(ge=0, le=MAX_DISTANCE)]
Row = Annotated[tuple[Distance, ...], Field(strict=False)]


class Numa(Strict):
    """Nodes of memory and CPUs, which share both evenly."""

    nodes: int = Field(1, ge=1, le=MAX_NODES)
    distances: Annotated[tuple[Row, ...], Field(strict=False)] | None = None
    """As firmware says them: 10 to itself, and from each to each. null: 20 to any other."""

    @model_validator(mode="after")
    def _distances_are_of_these_nodes(self) -> "Numa":
        if self.distances is not None:
            check_distances(self.nodes, self.distances)
        return self

    def spec(self) -> dict[str, Any]:
        """Return the fields of ``node.spec.NumaSpec``."""
        return {"nodes": self.nodes, "distances": self.distances or ()}
