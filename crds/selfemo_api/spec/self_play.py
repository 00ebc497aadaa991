"""``spec.selfPlay``: both roles play over dialogues and produce groups of candidates."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.spec.fields import EXPERT


def _refuse_remote_code(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("trust_remote_code", False) is not False:
        raise ValueError(
            "`trust_remote_code` must be false: code from a model repository is never run"
        )
    return arguments


#: Arguments that an engine receives unchanged. CEL cannot read unknown fields, so the schema itself
#: rejects the argument that would run a model's code.
EngineArgs = Annotated[
    dict[str, Any],
    AfterValidator(_refuse_remote_code),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "trust_remote_code": {
                    "type": "boolean",
                    "enum": [False],
                    "description": "Must be false: code from a model repository is never run.",
                }
            },
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]


class Engine(StrEnum):
    """The library that generates text."""

    VLLM = "VLLM"
    TRANSFORMERS = "Transformers"


class Role(StrEnum):
    """The two roles of the policy."""

    RECOGNIZER = "Recognizer"
    RESPONDER = "Responder"


class MaxTokens(ApiModel):
    """The maximum number of tokens per completion, by role."""

    recognizer: Annotated[int, Field(ge=1, le=4096)] = 16
    """The maximum number of tokens of a recognizer answer. An answer contains only label names, and
    three of them fit into 16 tokens."""
    responder: Annotated[int, Field(ge=1, le=4096)] = 48
    """The maximum number of tokens of a response. A response is one utterance, and the 99th
    percentile in MELD is 31 words."""


class SelfPlaySpec(ApiModel):
    """How the policy plays both roles over dialogues and produces groups of candidates."""

    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """The number of pods that self-play is split across. It does not change the result. 1 suits a
    single machine."""
    dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of dialogues to sample from the sources in each generation. If unset, all
    dialogues are used."""
    targets_per_dialogue: Annotated[int, Field(ge=1, le=256), EXPERT] = 2
    """The maximum number of target utterances per dialogue. With two, neighboring utterances do not
    crowd a batch."""
    group_size: Annotated[int, Field(ge=2, le=256)] = 8
    """The number of candidates for each prompt (G). Eight is common in TRL and DeepSeek."""
    turns: Annotated[int, Field(ge=1, le=16), EXPERT] = 1
    """The number of turns per episode. Above 1, one response is appended after each turn, and both
    roles continue from there. Without the responder, an episode has one turn."""
    roles: Annotated[list[Role], Field(min_length=1, max_length=2)] = [
        Role.RECOGNIZER,
        Role.RESPONDER,
    ]
    """The roles that play. SELF-EMO uses both. On MELD, a run with only the recognizer generates a
    fifth of the tokens."""
    responder_share: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 1.0
    """The fraction of targets that the responder answers, sampled with the seed. An episode whose
    target it does not answer has one turn. With 1.0, both roles play all targets. A response costs
    several times as much as a recognizer answer, so a smaller fraction gives the recognizer more
    targets at the same cost."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0), EXPERT] = 1.0
    """The sampling temperature. 1.0 samples from the model's own distribution, as the importance
    weights assume."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 1.0
    """The probability mass of nucleus sampling. 1.0 samples from the model's own distribution, as
    the importance weights assume."""
    max_tokens: Annotated[MaxTokens, EXPERT] = MaxTokens()
    """The maximum number of tokens per completion, by role."""
    engine: Engine = Engine.VLLM
    """The library that generates text. `VLLM` is the engine for real runs. `Transformers` is for
    machines for which there is no vLLM build."""
    engine_args: EngineArgs = Field(default_factory=dict)
    """Arguments that are passed to the engine unchanged, for example `gpu_memory_utilization`."""
    batch_prompts: Annotated[int, Field(ge=1, le=1_000_000), EXPERT] = 256
    """The approximate number of prompts per part. Parts are the unit of resuming: an interrupted
    stage keeps the parts that are complete."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.roles) || self.roles.all(r, self.roles.exists_one(s, s == r))",
            "`roles` must not contain duplicates",
        ),
    )
