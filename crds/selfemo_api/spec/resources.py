"""``spec.resources``: the nodes and accelerators of stages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.spec.fields import EXPERT


class ResourcesSpec(ApiModel):
    """The nodes and accelerators of stages."""

    accelerator: Annotated[
        str,
        Field(max_length=253, pattern=r"^([a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*)?$"),
    ] = "nvidia.com/gpu"
    """The name of the resource that a pod requests for each GPU, for example `amd.com/gpu` or
    `nvidia.com/mig-1g.10gb`. Defaults to the name that NVIDIA's device plugin uses. If empty, pods
    request no such resource, for example because `podTemplate` specifies resource claims."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """The number of nodes that train together."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """The number of GPUs on each node. If 0, all stages run on the CPU."""
    processes_per_node: Annotated[Annotated[int, Field(ge=1, le=64)] | None, EXPERT] = None
    """The number of training processes on each node. Defaults to one per GPU, or to one on a
    CPU."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.gpusPerNode) || self.gpusPerNode == 0 || !has(self.processesPerNode) || "
            "self.processesPerNode <= self.gpusPerNode",
            "`processesPerNode` must not exceed `gpusPerNode`",
            resolved=True,
        ),
    )

    @property
    def local_processes(self) -> int:
        """The number of training processes on each node."""
        return self.processes_per_node or max(self.gpus_per_node, 1)

    @property
    def processes(self) -> int:
        """The number of training processes on all nodes."""
        return self.nodes * self.local_processes
