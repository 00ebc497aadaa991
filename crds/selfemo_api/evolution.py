"""The resource ``EmotionEvolution`` as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: The largest length of a name. The host name of a pod has a suffix of up to 24 characters,
#: `-g999-selfplay-9999-1023`, and may have 63 in all.
NAME_MAX = 36


class Metadata(ApiModel):
    """The fields of ObjectMeta that selfemo reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    """The name of the evolution. Rules of the object as a whole limit it, because the API server
    ignores any other schema of ``metadata``."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""


class EmotionEvolution(ApiModel):
    """A language model that improves its own emotion recognition over several generations."""

    model_config = ConfigDict(title="EmotionEvolution")

    api_version: Literal["selfemo.dev/v1alpha1"] = "selfemo.dev/v1alpha1"
    kind: Literal["EmotionEvolution"] = "EmotionEvolution"
    metadata: Metadata
    spec: EvolutionSpec
    status: EvolutionStatus = EvolutionStatus()

    @property
    def run(self) -> str:
        """The folder of the run in the storage: `<namespace>/<name>-<uid8>`."""
        return f"{self.metadata.namespace}/{self.metadata.name}-{self.metadata.uid[:8]}"
