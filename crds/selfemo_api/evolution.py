"""The resource as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from selfemo_api.base import ApiModel
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: Longest name: `<name>-g999-selfplay-100-<index>-<5>` must stay within 63 characters.
NAME_MAX = 36


class Metadata(ApiModel):
    """The part of ObjectMeta that selfemo reads."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[
        str, Field(min_length=1, max_length=NAME_MAX, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
    ]
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""


class EmotionEvolution(ApiModel):
    """A language model that improves its own emotion recognition, generation by generation."""

    model_config = ConfigDict(title="EmotionEvolution")

    api_version: Literal["selfemo.dev/v1alpha1"] = "selfemo.dev/v1alpha1"
    kind: Literal["EmotionEvolution"] = "EmotionEvolution"
    metadata: Metadata
    spec: EvolutionSpec
    status: EvolutionStatus = EvolutionStatus()

    @property
    def run(self) -> str:
        """The run's folder in the storage: `<namespace>/<name>-<uid8>`."""
        return f"{self.metadata.namespace}/{self.metadata.name}-{self.metadata.uid[:8]}"
