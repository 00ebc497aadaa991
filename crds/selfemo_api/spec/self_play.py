"""``spec.selfPlay``: both roles play, and groups of candidates come out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from selfemo_api.api_model import ApiModel, Rule


def _refuse_remote_code(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("trust_remote_code", False) is not False:
        raise ValueError("`trust_remote_code` must be false: a model's own code is never run")
    return arguments


#: What an engine is given as it is. CEL cannot look into unknown fields, so the schema itself
#: refuses the one that would run a model's code.
EngineArgs = Annotated[
    dict[str, Any],
    AfterValidator(_refuse_remote_code),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"trust_remote_code": {"type": "boolean", "enum": [False]}},
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]


class Engine(StrEnum):
    """What generates text."""

    VLLM = "VLLM"
    TRANSFORMERS = "Transformers"


class Role(StrEnum):
    """The two roles of SELF-EMO."""

    RECOGNIZER = "Recognizer"
    RESPONDER = "Responder"


class MaxTokens(ApiModel):
    """Longest completions by role."""

    recognizer: Annotated[int, Field(ge=1, le=4096)] = 16
    """Label names only; 16 tokens hold three of them."""
    responder: Annotated[int, Field(ge=1, le=4096)] = 48
    """One utterance: MELD's 99th percentile is 31 words."""


class SelfPlaySpec(ApiModel):
    """Both roles play; groups of candidates come out."""

    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods that play side by side. One fits a single machine."""
    dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Dialogues drawn each generation. Unset: all of the sources."""
    targets_per_dialogue: Annotated[int, Field(ge=1, le=256)] = 2
    """Utterances of a dialogue that are played from; two keeps neighbors from crowding a batch."""
    group_size: Annotated[int, Field(ge=2, le=256)] = 8
    """Candidates for each prompt (G); TRL's and DeepSeek's usual eight."""
    turns: Annotated[int, Field(ge=1, le=16)] = 1
    """How often a chosen response is appended and the roles go on."""
    roles: Annotated[list[Role], Field(min_length=1, max_length=2)] = [
        Role.RECOGNIZER,
        Role.RESPONDER,
    ]
    """Which roles play. Both, as in SELF-EMO; one alone is an ablation."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """1.0 samples the model's own distribution, which the importance weights assume."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """1.0 for the same reason."""
    max_tokens: MaxTokens = MaxTokens()
    engine: Engine = Engine.VLLM
    """`VLLM` is the product's engine; `Transformers` serves where no vLLM build fits."""
    engine_args: EngineArgs = Field(default_factory=dict)
    """Passed to the engine as they are (e.g. `gpu_memory_utilization`)."""
    batch_prompts: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Prompts in one part file: the unit of resuming."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.roles.all(r, self.roles.exists_one(s, s == r))", "`roles` must not repeat"),
    )
