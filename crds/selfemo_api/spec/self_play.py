"""``spec.selfPlay``: both roles play over dialogues and produce groups of candidates."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.spec.fields import EXPERT


def _refuse_remote_code(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("trust_remote_code", False) is not False:
        raise ValueError("`trust_remote_code` must be false: code of a model is never run")
    return arguments


#: Arguments that an engine receives unchanged. CEL cannot read unknown fields, so the schema itself
#: refuses the argument that would run a model's code.
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
                    "description": "Code of a model is never run.",
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
    """The largest number of tokens of a completion, by role."""

    recognizer: Annotated[int, Field(ge=1, le=4096)] = 16
    """The largest number of tokens of a recognizer's answer. An answer has label names only, and
    16 tokens hold three of them."""
    responder: Annotated[int, Field(ge=1, le=4096)] = 48
    """The largest number of tokens of a response. A response is one utterance, and the 99th
    percentile in MELD is 31 words."""


class SelfPlaySpec(ApiModel):
    """How the policy plays both roles over dialogues and produces groups of candidates."""

    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """The number of pods that share self-play. It does not change the result. 1 suits a
    single machine."""
    dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of dialogues to draw from the sources in each generation. Unset: all."""
    targets_per_dialogue: Annotated[int, Field(ge=1, le=256), EXPERT] = 2
    """The largest number of target utterances of a dialogue. With two, neighboring utterances do
    not crowd a batch."""
    group_size: Annotated[int, Field(ge=2, le=256)] = 8
    """The number of candidates for each prompt (G). Eight is usual in TRL and DeepSeek."""
    turns: Annotated[int, Field(ge=1, le=16), EXPERT] = 1
    """The number of turns of an episode. Above 1, one response is appended after each turn, and
    both roles continue from there. Without the responder, an episode has one turn."""
    roles: Annotated[list[Role], Field(min_length=1, max_length=2)] = [
        Role.RECOGNIZER,
        Role.RESPONDER,
    ]
    """The roles that play. SELF-EMO has both. On MELD, the recognizer alone generates a fifth of
    the tokens of both."""
    responder_share: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 1.0
    """The share of targets that the responder answers, drawn by the seed. An episode whose target
    it does not answer has one turn. 1.0: both roles play all targets. A response costs several
    times an answer, so a smaller share gives the recognizer more targets at the same cost."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0), EXPERT] = 1.0
    """The sampling temperature. 1.0 samples from the model's own distribution, as the importance
    weights assume."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 1.0
    """The probability mass of nucleus sampling. 1.0 samples from the model's own distribution, as
    the importance weights assume."""
    max_tokens: Annotated[MaxTokens, EXPERT] = MaxTokens()
    """The largest number of tokens of a completion, by role."""
    engine: Engine = Engine.VLLM
    """The library that generates text. `VLLM` is the engine for real runs. `Transformers` is
    for machines for which there is no build of vLLM."""
    engine_args: EngineArgs = Field(default_factory=dict)
    """Arguments that the engine receives unchanged, for example `gpu_memory_utilization`."""
    batch_prompts: Annotated[int, Field(ge=1, le=1_000_000), EXPERT] = 256
    """The approximate number of prompts of one part. Parts are the unit of resuming: an interrupted
    stage keeps those that are complete."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.roles) || self.roles.all(r, self.roles.exists_one(s, s == r))",
            "`roles` must not contain a role twice",
        ),
    )
