"""Whether each engine, in each number format, agrees with float32 on the processor."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tools.gpu_check.lines import Settings
from tools.gpu_check.models import TOKENS, small_model

from selfemo_jobs.engines.interface import Sampling, TextEngine
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine

_PROMPTS, _TOKENS, _LENGTH = 24, 24, 320
GREEDY = Sampling(temperature=0.0, max_tokens=_TOKENS, greedy_logprobs=True)


@dataclass(frozen=True)
class Bounds:
    """How far an engine may be from the reference, in nats."""

    gap: float
    """By how much less likely than the reference's token another greedy token may be."""
    mean: float
    """The mean difference of the log-probabilities of tokens."""


#: By number format. A logit of this model varies by about three. bfloat16 has eight bits, so it is
#: off by hundredths; a wrong position, mask or head is off by whole nats.
BOUNDS = {"float32": Bounds(gap=2e-3, mean=1e-3), "bfloat16": Bounds(gap=0.6, mean=0.12)}


def run(settings: Settings) -> None:
    """Compare the engine Transformers, in both number formats."""
    for kind in BOUNDS:
        arguments = TransformersArgs(device=settings.device, dtype=kind)
        _check(
            settings,
            f"engines: Transformers, {kind}",
            kind,
            lambda folder, arguments=arguments: TransformersEngine(  # type: ignore[misc]
                folder, arguments, max_model_len=_LENGTH
            ),
        )


def run_vllm(settings: Settings) -> None:
    """Compare the engine vLLM. A CPU has it in float32 alone, as the stages use it there."""
    if find_spec("vllm") is None:
        settings.skip("engines: vLLM", "vLLM is not installed")
        return
    kind = "bfloat16" if settings.on_gpu else "float32"
    _check(settings, f"engines: vLLM, {kind}", kind, lambda folder: open_vllm(settings, folder))


def open_vllm(settings: Settings, folder: Path, length: int = _LENGTH) -> Any:
    """Return the engine vLLM. Two models of this size are in memory: it takes half of a GPU."""
    from selfemo_jobs.engines.vllm_engine import VllmEngine

    kind = {"dtype": "bfloat16", "gpu_memory_utilization": 0.5} if settings.on_gpu else {}
    return VllmEngine(folder, engine_args=kind, max_model_len=length, seed=0)


def prompts_of(count: int, shortest: int, longest: int) -> list[list[int]]:
    """Return prompts of random tokens, the same each time."""
    chance = random.Random(0)
    return [
        [chance.randrange(3, TOKENS) for _ in range(chance.randint(shortest, longest))]
        for _ in range(count)
    ]


def _check(settings: Settings, name: str, kind: str, open_it: Callable[[Path], TextEngine]) -> None:
    folder = small_model(settings)
    prompts = prompts_of(_PROMPTS, 4, 250)
    arguments = TransformersArgs(device="cpu", dtype="float32")
    reference = TransformersEngine(folder, arguments, max_model_len=_LENGTH)
    with closing(reference), closing(open_it(folder)) as engine:
        figures = compare(reference, engine, prompts)
    bounds = BOUNDS[kind]
    settings.write(
        name,
        value=round(figures["mean"], 6),
        unit="nats, mean difference of log-probabilities from float32 on the processor",
        goal=bounds.mean,
        holds=figures["mean"] <= bounds.mean and figures["gap"] <= bounds.gap,
        mostOf=round(figures["most"], 6),
        equalCompletions=figures["equal"],
        completions=len(prompts),
        gapWhereTheyDiffer=figures["gap"],
        gapGoal=bounds.gap,
    )


def compare(
    reference: TextEngine, engine: TextEngine, prompts: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return how far an engine is from a reference.

    Where a greedy completion differs, the first other token must be about as likely under the
    reference as its own. From there on, the two have read other tokens.

    Parameters
    ----------
    reference
        The engine that is taken as right.
    engine
        The other engine.
    prompts
        The token ids of each prompt.

    Returns
    -------
    dict
        ``equal``, the number of equal completions; ``gap``, in nats, of the least likely first
        other token; ``mean`` and ``most``, the differences of the log-probabilities of equal
        tokens and of the scores of some continuations.
    """
    differences: list[float] = []
    gaps = [0.0]
    equal = 0
    pairs = zip(
        prompts,
        reference.generate(prompts, GREEDY),
        engine.generate(prompts, GREEDY),
        strict=True,
    )
    for prompt, (right,), (other,) in pairs:
        same = _common(right.token_ids, other.token_ids)
        values = zip(right.logprobs[:same], other.logprobs[:same], strict=True)
        differences += [abs(a - b) for a, b in values]
        if same == len(right.token_ids) == len(other.token_ids):
            equal += 1
        else:
            gaps.append(_gap(reference, [*prompt, *right.token_ids[:same]], right, other, same))
    continuations = prompts_of(6, 1, 5)
    scores = reference.score(prompts, continuations), engine.score(prompts, continuations)
    for right_scores, other_scores in zip(*scores, strict=True):
        triples = zip(right_scores, other_scores, continuations, strict=True)
        differences += [abs(a - b) / len(c) for a, b, c in triples]
    return {
        "equal": equal,
        "gap": round(max(gaps), 6),
        "mean": statistics.fmean(differences),
        "most": max(differences),
    }


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of equal tokens at the beginning."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _gap(reference: TextEngine, read: list[int], right: Any, other: Any, place: int) -> float:
    """Return by how much less likely another token is than the reference's, in nats."""
    if min(len(right.token_ids), len(other.token_ids)) == place:
        return math.inf  # one of them ended where the other goes on
    tokens = [[right.token_ids[place]], [other.token_ids[place]]]
    ((likely, unlikely),) = reference.score([read], tokens)
    return likely - unlikely
