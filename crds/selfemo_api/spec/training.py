"""``spec.training``: SELF-GRPO on DeepSpeed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.spec.fields import EXPERT


class Offload(StrEnum):
    """What DeepSpeed keeps in main memory instead of on the GPU."""

    NONE = "None"
    OPTIMIZER = "Optimizer"
    OPTIMIZER_AND_PARAMETERS = "OptimizerAndParameters"


class Precision(StrEnum):
    """The number format of training."""

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class Start(StrEnum):
    """The generation whose weights training starts from."""

    BEST = "Best"
    BASELINE = "Baseline"
    MODEL = "Model"


class Schedule(StrEnum):
    """How the learning rate changes after the warm-up."""

    CONSTANT = "Constant"
    LINEAR = "Linear"


class DeepSpeedSpec(ApiModel):
    """How DeepSpeed partitions a model across processes."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """The ZeRO stage. 2 partitions optimizer state and gradients, without ZeRO-3's communication at
    every layer."""
    offload: Offload = Offload.NONE
    """What is kept in main memory instead of on the GPU: `None`, `Optimizer` (its state) or
    `OptimizerAndParameters`. The base value is `None`, because offloading is slow."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
            "`offload: OptimizerAndParameters` requires `zeroStage: 3`",
        ),
        Rule(
            "self.offload == 'None' || self.zeroStage > 0",
            "`offload` requires a `zeroStage` of 1 or more",
        ),
    )


class Lora(ApiModel):
    """Low-rank adapters (PEFT), which are merged into the model at the end."""

    rank: Annotated[int, Field(ge=0, le=1024)] = 32
    """The rank of the adapters. BiosERC and PRC-Emo use 32. If 0, adapters are not used, as if
    `lora` were unset."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0), EXPERT] = 64.0
    """The scale of the adapters: their output is multiplied by `alpha / rank`. 64 is twice
    a rank of 32."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), EXPERT] = 0.0
    """The dropout probability of the adapters in the warm start. It is 0, as it always is in the
    Train stage, where dropout would change the log-probabilities that the loss compares."""
    target_modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=64),
        EXPERT,
    ] = ["all-linear"]
    """The names of the modules that get adapters. `all-linear` selects all linear layers except the
    output layer."""


class Clip(ApiModel):
    """The clipping of the probability ratio, with two bounds (DAPO, arXiv 2503.14476)."""

    low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """The ratio is clipped at 1 minus this value. 0.2 is DAPO's value."""
    high: Annotated[float, Field(gt=0.0, le=10.0)] = 0.28
    """The ratio is clipped at 1 plus this value. 0.28 is DAPO's value."""


class OptimizerSpec(ApiModel):
    """AdamW, and how its learning rate changes."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """The learning rate after the warm-up. 1e-6 is TRL's default for GRPO on all weights. For small
    models, use 1e-5."""
    schedule: Annotated[Schedule, EXPERT] = Schedule.CONSTANT
    """How the learning rate changes after the warm-up. `Constant` gives every group the same
    effect, regardless of its position in the random order of a short generation. `Linear` falls to
    zero at the last step. Use it with a high learning rate, for example with `imitation`:
    otherwise, the last few batches determine the final weights."""
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0), EXPERT] = 0.05
    """The fraction of the steps, from 0 to 1, over which the learning rate rises. The first step
    uses a part of the rate."""
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1000.0), EXPERT] = 1.0
    """The norm to which larger gradients are scaled down. 1.0 is the default of Transformers."""


class TrainingSpec(ApiModel):
    """How the policy is trained on the kept groups (SELF-GRPO)."""

    start: Annotated[Start, EXPERT] = Start.BEST
    """The generation whose weights training starts from. `Best` continues with the best one.
    `Baseline` trains the baseline's weights again in each generation, on groups that the best one
    produced (STaR, arXiv 2203.14465): errors then do not accumulate over generations. `Model`
    trains the weights of `model.uri`, as they were before the warm start: the trained model has
    then not memorized the labeled subset (noisy student, arXiv 1911.04252)."""
    imitation: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """The weight of an additional loss: the cross-entropy of the consensus of each recognizer
    group. It also teaches an emotion that no candidate of the group named. With 0, only SELF-GRPO
    is used, as published. On EmoryNLP, a small model improved with 10 and never with 0 (three
    seeds)."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """AdamW, and how its learning rate changes."""
    clip: Annotated[Clip, EXPERT] = Clip()
    """The clipping of the probability ratio, with two bounds (DAPO, arXiv 2503.14476)."""
    kl_beta: Annotated[float, Field(ge=0.0, le=10.0), EXPERT] = 0.0
    """The weight of the KL divergence from the reference model. With 0, no second model is needed;
    clipping and promotion limit how far the policy moves."""
    importance_cap: Annotated[float, Field(gt=0.0, le=100.0), EXPERT] = 2.0
    """The maximum importance weight of a token; larger weights are truncated. The weight corrects
    for the difference between sampling and training. SkyRL uses 2 for tokens."""
    epochs: Annotated[int, Field(ge=1, le=100), EXPERT] = 1
    """The number of passes over the kept groups. With one, training stays nearly on-policy."""
    max_steps: Annotated[Annotated[int, Field(ge=1, le=10_000_000)] | None, EXPERT] = None
    """The maximum number of optimizer steps. If unset, it is the number that `epochs` requires."""
    batch_size: Annotated[int, Field(ge=2, le=1_048_576)] = 64
    """The number of completions per optimizer step, over all processes. Must be a multiple of the
    group size, because groups are never split."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 8
    """The number of completions in one forward pass of one process. Lower it if memory runs out."""
    precision: Annotated[Precision, EXPERT] = Precision.BFLOAT16
    """The number format of training. `BFloat16` is what recent GPUs are built for. On a CPU, it
    only rounds the factors of products: this is faster on CPUs with AVX512-BF16 or AMX, and takes a
    third longer on others. `Float32` loses no precision."""
    gradient_checkpointing: Annotated[bool, EXPERT] = True
    """Whether activations are recomputed in the backward pass. This takes a third more time and a
    fraction of the memory, which large models need."""
    deepspeed: Annotated[DeepSpeedSpec, EXPERT] = DeepSpeedSpec()
    """How DeepSpeed partitions the model across processes."""
    lora: Lora | None = None
    """Low-rank adapters (PEFT) to train instead of the weights. They are merged into the model at
    the end. If unset, the weights are trained."""
    train_layers: Annotated[int, Field(ge=0, le=1024)] = 0
    """The number of last layers to train. The layers before them process each row once, and their
    output is kept in main memory. With more than 2 GiB of output, or with ZeRO-3, nothing is kept.
    With 0, all weights are trained, as in the paper."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000), EXPERT] = 50
    """The number of steps between two checkpoints. It is the maximum number of steps that an
    interrupted training loses."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.batchSize) || !has(self.microBatchSize) || "
            "self.batchSize % self.microBatchSize == 0",
            "`batchSize` must be a multiple of `microBatchSize`",
        ),
        Rule(
            "!has(self.trainLayers) || self.trainLayers == 0 || !has(self.lora) || "
            "(has(self.lora.rank) && self.lora.rank == 0)",
            "`trainLayers` must be 0 with `lora`: adapters have their own weights",
        ),
    )
