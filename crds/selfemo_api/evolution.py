"""The resource as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: Longest name: a pod's host name `<name>-g999-selfplay-9999-1023` has at most 63 characters.
NAME_MAX = 36


class Metadata(ApiModel):
    """The part of ObjectMeta that selfemo reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    """Bounded by rules of the object as a whole: the API server looks at no other schema of it."""
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
