"""What a run takes: tokens, GPU hours, bytes and requests of the storage, Jobs. Pure.

It is an upper bound in tokens: no generation ends the run early (see also
:mod:`selfemo_jobs.stages.check.token_counts`). Hours follow from the tokens, the size of the model,
published figures of a GPU and :data:`ASSUMED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.stages.check.architecture_size import DecoderSize
from selfemo_jobs.stages.check.devices import Device
from selfemo_jobs.stages.check.token_counts import (
    StageTokens,
    expression_responses,
    generation_tokens,
)
from selfemo_jobs.stages.check.traffic import Traffic, run_traffic, weight_bytes
from selfemo_jobs.stages.check.workload import Workload


@dataclass(frozen=True)
class Assumptions:
    """What cannot be counted before a run. `make gpu-check` measures the shares on a device."""

    reading: float = 0.5
    """The share of the device's products that reading prompts reaches: vLLM's prefill of long
    batches reaches about half."""
    training: float = 0.35
    """The same of training. Llama 3 was trained at 0.38 to 0.43 (arXiv 2407.21783); batches are
    small here."""
    bandwidth: float = 0.6
    """The share of the memory's bandwidth that generating reaches."""
    sequences: int = 256
    """The number of completions that are generated together, without `max_num_seqs`: vLLM's
    default."""
    start_seconds: float = 45.0
    """The seconds until an engine or a training process has its first token, without its weights:
    imports, kernels, CUDA graphs."""
    load_bytes: float = 1e9
    """The bytes of weights that are fetched and loaded in a second."""


ASSUMED = Assumptions()


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes at most."""

    generations: int
    """The number of generations after the baseline."""
    device: str
    """The GPU whose figures the hours follow from; empty for a run on the processor."""
    tokens: Mapping[Stage, StageTokens]
    """By stage, over all generations."""
    gpu_hours: Mapping[Stage, float]
    """By stage, over all generations; empty for a run on the processor."""
    engine_starts: int
    """How often a model is loaded."""
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def total_hours(self) -> float:
        """The GPU hours of all stages."""
        return sum(self.gpu_hours.values())

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON."""
        return {
            "generations": self.generations,
            "device": self.device,
            "stages": {
                stage.value: {
                    "read": round(tokens.read),
                    "generated": round(tokens.generated),
                    "trained": round(tokens.trained),
                    **(
                        {"gpuHours": round(self.gpu_hours[stage], 3)}
                        if stage in self.gpu_hours
                        else {}
                    ),
                }
                for stage, tokens in self.tokens.items()
            },
            "gpuHours": round(self.total_hours, 3),
            "engineStarts": self.engine_starts,
            "storage": {
                "storedBytes": round(self.traffic.stored_bytes),
                "writtenBytes": round(self.traffic.written_bytes),
                "readBytes": round(self.traffic.read_bytes),
                "requests": round(self.traffic.requests),
            },
            "kubernetes": {
                "jobs": self.traffic.jobs,
                "pods": self.traffic.pods,
                "writes": self.traffic.api_writes,
            },
        }


def estimate_run(
    spec: EvolutionSpec,
    work: Workload,
    size: DecoderSize | None,
    device: Device | None,
    assumed: Assumptions = ASSUMED,
) -> RunEstimate:
    """Return what a run takes at most.

    Parameters
    ----------
    spec
        The resolved spec.
    work
        What the run has to read.
    size
        The size of the model. None: only tokens are estimated.
    device
        The GPU. None: the run is on the processor, whose hours are not estimated.
    assumed
        What cannot be counted.
    """
    generations = spec.stopping.max_generations
    once = {
        stage: tokens.times(1 if stage is Stage.WARM_START else generations)
        for stage, tokens in generation_tokens(spec, work).items()
    }
    evaluate = once[Stage.EVALUATE]
    # generation 0 is evaluated too
    once[Stage.EVALUATE] = evaluate.times((generations + 1) / generations)
    starts = dict.fromkeys(once, generations) | {
        # the baseline judges the responses of later generations
        Stage.EVALUATE: generations + 1 + (generations if expression_responses(spec, work) else 0),
        Stage.WARM_START: 1 if spec.has_warm_start else 0,
    }
    hours = {}
    if size is not None and device is not None and spec.resources.gpus_per_node > 0:
        for stage, tokens in once.items():
            seconds = stage_seconds(tokens, spec, size, device, assumed)
            weights = size.parameters * weight_bytes(spec)
            start = assumed.start_seconds + weights / assumed.load_bytes
            hours[stage] = (seconds + starts.get(stage, 0) * start) / 3600
    return RunEstimate(
        generations=generations,
        device=device.name if hours and device else "",
        tokens=once,
        gpu_hours=hours,
        engine_starts=sum(starts[stage] for stage in once),
        traffic=run_traffic(spec, work, size.parameters if size else 0),
    )


def stage_seconds(
    tokens: StageTokens,
    spec: EvolutionSpec,
    size: DecoderSize,
    device: Device,
    assumed: Assumptions = ASSUMED,
) -> float:
    """Return the seconds of one GPU for the tokens of a stage, without starts.

    Generating a token reads all weights for each step of the completions that are generated
    together, and the keys and values of each one's context. It takes the longer one of these reads
    and the products.

    Parameters
    ----------
    tokens
        The tokens.
    spec
        The resolved spec.
    size
        The size of the model.
    device
        The GPU.
    assumed
        What cannot be counted.
    """
    peak, bandwidth = device.teraflops * 1e12, device.bandwidth * 1e9
    half = tokens.context / 2
    reading = size.forward_flops(tokens.read, half, tokens.completions)
    seconds = reading / (peak * assumed.reading)
    if tokens.generated:
        limit = spec.self_play.engine_args.get("max_num_seqs", assumed.sequences)
        together = max(1.0, min(float(limit), tokens.completions))
        weights = tokens.generated / together * 2.0 * (size.body + size.head)
        cache = tokens.generated * tokens.context * 2.0 * size.cache_per_token
        moved = (weights + cache) / (bandwidth * assumed.bandwidth)
        products = size.forward_flops(tokens.generated, tokens.context, tokens.generated)
        seconds += max(moved, products / (peak * assumed.reading))
    if tokens.trained:
        forward = size.forward_flops(tokens.trained, half, tokens.completions)
        seconds += forward * training_passes(spec) / (peak * assumed.training)
    return seconds


def training_passes(spec: EvolutionSpec) -> float:
    """Return how many forward passes a step of training is worth.

    A backward pass is worth two: one for the gradients of the values, and one for those of the
    weights, which adapters and frozen layers do not need. Gradient checkpointing adds one.

    Parameters
    ----------
    spec
        The resolved spec.

    Examples
    --------
    >>> from selfemo_api.spec import Lora, TrainingSpec
    >>> spec = EvolutionSpec.model_construct(training=TrainingSpec(lora=Lora()))
    >>> training_passes(spec)
    3.0
    """
    training = spec.training
    adapters = training.lora is not None and training.lora.rank > 0
    backward = 1.0 if adapters or training.train_layers > 0 else 2.0
    return 1.0 + backward + (1.0 if training.gradient_checkpointing else 0.0)
