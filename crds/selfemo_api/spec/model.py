"""``spec.model`` and ``spec.resumeFrom``: the model that an evolution starts from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, ShortText
from selfemo_api.spec.fields import StorageUri, Uri


class ModelSpec(ApiModel):
    """The model as given: generation 0."""

    uri: Uri
    """`hf://owner/name`, `s3://bucket/prefix`, `file:///folder` or `data://volume/folder`; weights
    in safetensors only."""
    revision: ShortText | None = None
    """A hub revision; give a commit for a run that can be repeated."""
    prompts: Annotated[str, Field(pattern=r"^[a-z]+-v[0-9]+$", max_length=32)] = "chat-v1"
    """The prompt set, versioned with the code: `chat-v1` for instruction-tuned models, the common
    case; `compact-v1` for small ones."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 1024
    """Longer prompts lose their oldest turns. 1024 holds MELD's longest dialogues with room."""


class ResumeFrom(ApiModel):
    """Start from a generation of another run."""

    uri: StorageUri
    """The `evaluate/manifest.json` or `train/manifest.json` of one of its generations: its model is
    generation 0 here, in place of `model.uri`."""
