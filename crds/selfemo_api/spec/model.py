"""``spec.model`` and ``spec.resumeFrom``: the model that an evolution starts from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, ShortText
from selfemo_api.spec.fields import StorageUri, Uri


class ModelSpec(ApiModel):
    """The model of the baseline (generation 0), and its prompts."""

    uri: Uri
    """The URI of the model: `hf://owner/name`, `s3://bucket/prefix`, `file:///folder` or
    `data://volume/folder`. The weights must be safetensors."""
    revision: ShortText | None = None
    """The revision of an `hf://` model. Set it to a commit, so that the run can be repeated. Unset:
    the repository's default branch."""
    prompts: Annotated[str, Field(pattern=r"^[a-z]+-v[0-9]+$", max_length=32)] = "chat-v1"
    """The name and version of the built-in prompt set. `chat-v1` is for instruction-tuned models,
    the common case. `compact-v1` is for small models."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 1024
    """The largest number of tokens of a prompt. Longer prompts lose their oldest turns. MELD's
    longest dialogues fit into 1024 tokens with room to spare."""


class ResumeFrom(ApiModel):
    """A generation of another run, whose model becomes the baseline of this one."""

    uri: StorageUri
    """The URI of that generation's `train/manifest.json` or `evaluate/manifest.json`. Its model
    becomes generation 0 of this run, in place of `model.uri`."""
