"""The ``EmotionEvolution`` resource as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.recipes import resolve
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: The maximum length of a name. The host name of a pod has a suffix of up to 24 characters,
#: `-g999-selfplay-9999-1023`, and may have 63 characters in total.
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
    """The resolved spec, with recipe and preset applied."""
    written: JsonObject = {}
    """The spec as the user wrote it. In the Kubernetes resource, it is ``spec``."""
    status: EvolutionStatus = EvolutionStatus()

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, document: Any) -> Any:
        """Resolve the spec of a resource. A dump of this type has ``written``, and is resolved."""
        if not isinstance(document, dict) or "written" in document:
            return document
        spec = document.get("spec")
        if not isinstance(spec, dict):
            return document
        return {**document, "spec": resolve(spec), "written": spec}

    @property
    def run(self) -> str:
        """The folder of the run in the storage: `<namespace>/<name>-<uid8>`."""
        return f"{self.metadata.namespace}/{self.metadata.name}-{self.metadata.uid[:8]}"
