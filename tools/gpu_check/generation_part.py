"""Tokens a second, and the share of the device's peak, of reading and generating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from tools.gpu_check.device_part import seconds
from tools.gpu_check.engines_part import open_vllm, prompts_of
from tools.gpu_check.lines import Settings
from tools.gpu_check.models import size_of, speed_model

from selfemo_jobs.engines.interface import Sampling, TextEngine
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.stages.check.architecture_size import DecoderSize

#: The share of the bare library's speed that an engine keeps.
GOAL = 0.95


@dataclass(frozen=True)
class Load:
    """What is read and generated."""

    prompts: list[list[int]]
    group: int
    """The number of completions of each prompt."""
    tokens: int
    """The number of tokens of each completion."""

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def longest(self) -> int:
        """The most tokens of a prompt and its completion."""
        return max(map(len, self.prompts)) + self.tokens

    @property
    def completions(self) -> int:
        """The number of all completions."""
        return len(self.prompts) * self.group

    def reading_flops(self, size: DecoderSize) -> float:
        """Return the floating-point operations of reading each prompt once."""
        context = self.prompt_tokens / len(self.prompts) / 2
        return size.forward_flops(self.prompt_tokens, context, len(self.prompts))

    def generation_flops(self, size: DecoderSize) -> float:
        """Return the floating-point operations of generating all completions."""
        tokens = self.completions * self.tokens
        context = self.prompt_tokens / len(self.prompts) + self.tokens / 2
        return size.forward_flops(tokens, context, tokens)


def load_of(settings: Settings) -> Load:
    """Return the load for the device: what a part of self-play has on a GPU."""
    if settings.on_gpu:
        return Load(prompts_of(256, 100, 300), group=8, tokens=48)
    return Load(prompts_of(8, 100, 200), group=4, tokens=12)


def run(settings: Settings) -> None:
    """Measure the engine Transformers beside the library's own methods."""
    folder, load = speed_model(settings), load_of(settings)
    kind = "bfloat16" if settings.on_gpu else "float32"
    arguments = TransformersArgs(device=settings.device, dtype=kind, batch_size=256)
    engine = TransformersEngine(folder, arguments, max_model_len=load.longest)
    with closing(engine):
        model, pad = engine.model, engine.tokenizer.pad_token_id

        def batches(group: int) -> list[dict[str, Any]]:
            size = max(1, arguments.batch_size // group)
            order = sorted(load.prompts, key=len)
            return [
                _padded(order[start : start + size], pad, settings.device)
                for start in range(0, len(order), size)
            ]

        @torch.inference_mode()
        def bare_reading() -> None:
            for batch in batches(1):
                model(**batch, logits_to_keep=1)

        @torch.inference_mode()
        def bare_generation() -> None:
            for batch in batches(load.group):
                model.generate(
                    **batch,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    num_return_sequences=load.group,
                    max_new_tokens=load.tokens,
                    min_new_tokens=load.tokens,
                    pad_token_id=pad,
                )

        _measure(settings, "Transformers", engine, load, bare_reading, bare_generation)


def run_vllm(settings: Settings) -> None:
    """Measure the engine vLLM beside bare ``LLM.generate``."""
    if find_spec("vllm") is None:
        settings.skip("speed: vLLM", "vLLM is not installed")
        return
    from vllm import SamplingParams

    folder, load = speed_model(settings), load_of(settings)
    with closing(open_vllm(settings, folder, load.longest)) as engine:
        inputs = [{"prompt_token_ids": prompt} for prompt in load.prompts]

        def bare(parameters: Any) -> Callable[[], None]:
            def work() -> None:
                engine.llm.reset_prefix_cache()
                engine.llm.generate(inputs, parameters, use_tqdm=False)

            return work

        reading = SamplingParams(temperature=0.0, max_tokens=1)
        each = [engine.parameters(_sampled(load), index) for index in range(len(inputs))]
        _measure(settings, "vLLM", engine, load, bare(reading), bare(each))


def _sampled(load: Load) -> Sampling:
    return Sampling(n=load.group, temperature=1.0, max_tokens=load.tokens)


def _measure(
    settings: Settings,
    name: str,
    engine: TextEngine,
    load: Load,
    bare_reading: Callable[[], None],
    bare_generation: Callable[[], None],
) -> None:
    """Write the lines about reading and generating with an engine.

    Parameters
    ----------
    settings
        The device.
    name
        The name of the engine's library.
    engine
        The engine.
    load
        What is read and generated.
    bare_reading, bare_generation
        The same with the library alone.
    """
    size, peak = size_of(speed_model(settings)), settings.peak
    counts: list[int] = []

    def reading() -> None:
        engine.generate(load.prompts, Sampling(temperature=0.0, max_tokens=1))

    def generation() -> None:
        groups = engine.generate(load.prompts, _sampled(load))
        counts.append(sum(len(c.token_ids) for group in groups for c in group))

    ours, bare = _in_turn(reading, bare_reading, settings)
    flops = load.reading_flops(size)
    settings.write(
        f"speed: reading with {name}, over the bare library",
        value=round(bare / ours, 3),
        goal=GOAL,
        holds=settings.reaches(bare / ours, GOAL),
        tokensPerSecond=round(load.prompt_tokens / ours, 1),
        bareTokensPerSecond=round(load.prompt_tokens / bare, 1),
        shareOfPeak=round(flops / ours / peak["flops"], 4),
        shape=settings.shape,
    )
    both, bare_both = _in_turn(generation, bare_generation, settings)
    # completions may end early with the engine, as they do in the stages
    tokens, bare_tokens = counts[-1], load.completions * load.tokens
    if name == "vLLM":
        bare_tokens = tokens
    value = (tokens / both) / (bare_tokens / bare_both)
    steps = load.tokens * -(-load.completions // 256)
    moved = steps * (2.0 if settings.on_gpu else 4.0) * (size.body + size.head)
    settings.write(
        f"speed: generating with {name}, over the bare library",
        value=round(value, 3),
        goal=GOAL,
        holds=settings.reaches(value, GOAL),
        tokensPerSecond=round(tokens / both, 1),
        bareTokensPerSecond=round(bare_tokens / bare_both, 1),
        shareOfPeak=round(
            (flops + load.generation_flops(size) * tokens / (load.completions * load.tokens))
            / both
            / peak["flops"],
            4,
        ),
        # the weights alone, read once for each step of 256 completions
        shareOfBandwidth=round(moved / both / peak["bytes"], 4),
        shape=settings.shape,
    )


def _in_turn(
    ours: Callable[[], None], bare: Callable[[], None], settings: Settings
) -> tuple[float, float]:
    """Return the shortest times of two pieces of work that take turns."""
    times: list[list[float]] = [[], []]
    for repeat in range(3):
        for index, work in ((0, ours), (1, bare))[:: 1 if repeat % 2 == 0 else -1]:
            times[index].append(seconds(work, settings, repeats=1))
    return min(times[0]), min(times[1])


def _padded(prompts: Sequence[Sequence[int]], pad: int, device: str) -> dict[str, Any]:
    """Return prompts padded on the left, as the library reads them."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return {"input_ids": ids, "attention_mask": mask}
