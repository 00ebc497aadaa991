"""``spec.training``: SELF-GRPO on DeepSpeed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule


class Offload(StrEnum):
    """What DeepSpeed keeps in main memory instead of on the accelerator."""

    NONE = "None"
    OPTIMIZER = "Optimizer"
    OPTIMIZER_AND_PARAMETERS = "OptimizerAndParameters"


class Precision(StrEnum):
    """The arithmetic of training."""

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class Start(StrEnum):
    """Which model's weights training starts from."""

    BEST = "Best"
    BASELINE = "Baseline"


class Schedule(StrEnum):
    """How the learning rate goes on after its warm-up."""

    CONSTANT = "Constant"
    LINEAR = "Linear"


class DeepSpeedSpec(ApiModel):
    """DeepSpeed's partitioning."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    """2 splits optimizer state and gradients, without ZeRO-3's gathers at every layer."""
    offload: Offload = Offload.NONE

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
            "`offload: OptimizerAndParameters` must come with `zeroStage: 3`",
        ),
        Rule(
            "self.offload == 'None' || self.zeroStage > 0",
            "`offload` must come with a `zeroStage` of 1 or more",
        ),
    )


class Lora(ApiModel):
    """Low-rank adapters (PEFT), merged into the model at the end."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 32
    """What BiosERC and PRC-Emo use."""
    alpha: Annotated[float, Field(gt=0.0, le=4096.0)] = 64.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """0: dropout would change the log-probabilities that the ratio compares."""
    target_modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=64),
    ] = ["all-linear"]


class Clip(ApiModel):
    """Asymmetric clipping of the probability ratio (DAPO, arXiv 2503.14476)."""

    low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    high: Annotated[float, Field(gt=0.0, le=10.0)] = 0.28


class TrainingSpec(ApiModel):
    """SELF-GRPO."""

    start: Start = Start.BEST
    """The weights that training starts from. `Baseline` begins each generation anew with what
    the best one has found (STaR, arXiv 2203.14465): errors do not add up over generations."""
    imitation: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """Weight of the cross-entropy on what recognizer groups agree on, beside SELF-GRPO's loss: an
    emotion that no candidate of a group names is learnt all the same. 0: SELF-GRPO alone, as
    published; a small model gained on EmoryNLP with 10 and never with 0 (three seeds)."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """TRL's default for GRPO with full weights; small models want 1e-5."""
    schedule: Schedule = Schedule.CONSTANT
    """`Constant`: a generation is short and its order arbitrary, so no group counts less. `Linear`
    falls to zero at the last step: at a high rate (with `imitation`, say) the weights else end
    wherever the last batches have pulled them."""
    clip: Clip = Clip()
    kl_beta: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the KL to the reference. 0 needs no second model; the clip and the gate hold it."""
    importance_cap: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    """Truncation of the sampling-to-training importance weight (SkyRL's token TIS value)."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the kept groups; one keeps the rollouts nearly on-policy."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    batch_size: Annotated[int, Field(ge=2, le=1_048_576)] = 64
    """Completions in one optimizer step, over all processes; whole groups."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Completions in one forward pass of one process."""
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    precision: Precision = Precision.BFLOAT16
    """`BFloat16` is what GPUs of the last years do. On a CPU it rounds the factors of products
    alone: faster on processors that have it (AVX512-BF16, AMX), a third slower on others."""
    gradient_checkpointing: bool = True
    """A third more time for a fraction of the memory: large models need it."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """0 trains on the CPU."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Unset: one for each GPU, one on a CPU."""
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()
    lora: Lora | None = None
    train_layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Train only the last so many layers. The others read each row once, and what they make of it
    is kept in main memory (where it takes at most 2 GiB; not at ZeRO 3). Unset: all weights."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """A preempted run loses at most this many steps."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.batchSize % self.microBatchSize == 0",
            "`batchSize` must be a multiple of `microBatchSize`",
        ),
        Rule(
            "self.gpusPerNode == 0 || !has(self.processesPerNode) || "
            "self.processesPerNode <= self.gpusPerNode",
            "`processesPerNode` must not exceed `gpusPerNode`",
        ),
        Rule(
            "!has(self.trainLayers) || !has(self.lora)",
            "`trainLayers` must go without `lora`, which has weights of its own",
        ),
        Rule(
            "self.batchSize % (self.microBatchSize * self.nodes * (has(self.processesPerNode) ? "
            "self.processesPerNode : (self.gpusPerNode > 0 ? self.gpusPerNode : 1))) == 0",
            "`batchSize` must be a multiple of `microBatchSize` times the number of processes",
        ),
    )

    @property
    def bfloat16_weights(self) -> bool:
        """Whether the weights that a forward pass reads are bfloat16."""
        return self.precision is Precision.BFLOAT16 and self.gpus_per_node > 0

    @property
    def bfloat16_products(self) -> bool:
        """Whether float32 weights are rounded for the products of a forward pass (on a CPU)."""
        return self.precision is Precision.BFLOAT16 and self.gpus_per_node == 0

    @property
    def local_processes(self) -> int:
        """Processes on each node."""
        return self.processes_per_node or max(self.gpus_per_node, 1)

    @property
    def processes(self) -> int:
        """Processes over all nodes."""
        return self.nodes * self.local_processes
