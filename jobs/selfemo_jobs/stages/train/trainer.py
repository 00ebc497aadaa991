"""SELF-GRPO: TRL's ``GRPOTrainer`` on recorded groups.

``GRPOTrainer`` generates completions, rewards them and trains. Here self-play, scoring and the
flywheel have done the first two, so two of its methods are replaced: the sampler (the fixed order
of :mod:`selfemo_jobs.stages.train.batches`) and ``_generate_and_score_completions`` (what was
recorded).
The loss is TRL's own, under one scheme: token-level DAPO loss with asymmetric clipping, and each
token's advantage times the truncated importance weight. See docs/guides/training.md.

The replaced methods are private; TRL is pinned and tests hold their signatures.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor
from torch.utils.data import Sampler
from trl import GRPOTrainer
from trl.trainer.utils import pad

from selfemo_jobs.acceleration.frozen_layer_cache import FrozenLayers, fits
from selfemo_jobs.acceleration.prefix_packing import Packed, can_pack, pack, packed_logprobs
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.batches import PADDING, Step
from selfemo_jobs.stages.train.rollout_data import Recorded

log = logging.getLogger(__name__)


class StepSampler(Sampler[int]):
    """Yields dataset indices so that each process is given its share of each step.

    The trainer asks for a whole step's share before each pass and uses one pass of it.
    """

    def __init__(self, steps: Sequence[Step], padding: int) -> None:
        self._steps = steps
        self._padding = padding

    def __iter__(self) -> Iterator[int]:
        """Yield the indices, `padding` for rows that fill a pass up."""
        for step in self._steps:
            for _ in step.passes[0]:
                for share in step.passes:
                    yield from (self._padding if r == PADDING else r for p in share for r in p)

    def __len__(self) -> int:
        """Return how many indices there are."""
        return sum(len(s.passes[0]) * sum(len(p) for x in s.passes for p in x) for s in self._steps)


def importance_weights(
    old: npt.NDArray[np.float32], sampled: npt.NDArray[np.float32], cap: float
) -> npt.NDArray[np.float32]:
    """Return the truncated importance weights of tokens: ``min(exp(old - sampled), cap)``.

    Parameters
    ----------
    old
        Log-probabilities under the policy as training starts, by the training stack.
    sampled
        Log-probabilities recorded when the tokens were sampled.
    cap
        Upper bound ("truncated importance sampling", as in SkyRL).
    """
    # exp of what is over the cap anyway could overflow
    weights: npt.NDArray[np.float32] = np.exp(np.minimum(old - sampled, math.log(cap)))
    return weights.astype(np.float32)


def _clip_and_keep_norm(engine: Any) -> None:
    """Clip gradients as the engine does, and keep their norm, which it throws away at ZeRO 0."""
    norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping())
    engine._global_grad_norm = norm.item()


def _no_reward(*_args: Any, **_kwargs: Any) -> list[float]:
    """Stand in for the reward that GRPOTrainer asks for; advantages are recorded."""
    raise RuntimeError("nothing is rewarded while training")


class SelfGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Trains on recorded groups. Construct with ``beta=0`` in the arguments: see ``kl_beta``."""

    def __init__(
        self,
        *args: Any,
        rows: Recorded,
        steps: Sequence[Step],
        kl_beta: float,
        imitation: float = 0.0,
        bfloat16_products: bool = False,
        remember_below: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._rows = rows
        self._steps = steps
        self._old: npt.NDArray[np.float32] | None = None
        self._weights: npt.NDArray[np.float32] | None = None
        self._reference: npt.NDArray[np.float32] | None = None
        self._packed: Packed | None = None
        self._imitation = imitation
        self._bfloat16_products = bfloat16_products
        self._logprobs: Tensor | None = None  # of the pass under way
        super().__init__(*args, reward_funcs=_no_reward, **kwargs)
        # Given in the arguments, it would load a second model; the reference is worked out once.
        self.beta = kl_beta
        self._packs = can_pack(self.model.config)
        # so many last layers are trained: what is below them reads each row once
        self._frozen = self._memory(remember_below) if remember_below and self._packs else None

    def _memory(self, trained: int) -> FrozenLayers | None:
        """Return the memory of the layers below the trained ones, or None where it is too large."""
        prompts, completions = self._rows.prompts.lengths, self._rows.completions.lengths
        tokens = sum(int(prompts[g[0]]) + int(completions[g].sum()) for g in self._rows.groups)
        itemsize = 4 if self._bfloat16_products else self.model.dtype.itemsize
        if fits(tokens, self.model.config.hidden_size, itemsize):
            return FrozenLayers(self.model, trained)
        return None

    def use_logprobs(
        self,
        old: npt.NDArray[np.float32],
        reference: npt.NDArray[np.float32] | None,
        cap: float,
    ) -> None:
        """Set log-probabilities of all completion tokens, flat in the rows' order.

        Parameters
        ----------
        old
            Under the policy as training starts.
        reference
            Under the reference; None where ``kl_beta`` is 0.
        cap
            Of the importance weights.
        """
        self._old, self._reference = old, reference
        self._weights = importance_weights(old, self._rows.logprobs.values, cap)

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """Importance weights of all completion tokens."""
        if self._weights is None:
            raise RuntimeError("the old log-probabilities are not there yet")
        return self._weights

    def measure_logprobs(self, model: Any) -> npt.NDArray[np.float32]:
        """Return the log-probabilities of the planned rows under a model, flat.

        Rows are read in the passes of the first epoch, as training will: with unchanged weights
        the ratio is then 1 to the last bit.
        """
        flat = torch.zeros(len(self._rows.completions.values), dtype=torch.float32)
        device, training = self.accelerator.device, model.training
        model.eval()
        with torch.no_grad():
            for step in (s for s in self._steps if s.epoch == 0):
                for rows in step.passes[self.accelerator.process_index]:
                    batch = self._batch(rows)
                    found, _, _ = self._get_per_token_logps_and_entropies(
                        model,
                        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
                        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
                        batch["completion_ids"].size(1),
                    )
                    self._scatter(flat, rows, found.float().cpu())
        model.train(training)
        if self.accelerator.num_processes > 1:
            # every row is some process's, and zero with the others: the sum is exact
            shared = flat.to(device)
            dist.all_reduce(shared)
            flat = shared.cpu()
        if not torch.isfinite(flat).all():
            raise BadInput("the policy gives log-probabilities that are not finite: it is broken")
        return flat.numpy()

    def check_engine(self, zero_stage: int) -> None:
        """Check that DeepSpeed does the work, and say so.

        Raises
        ------
        RuntimeError
            If the wrapped model is no DeepSpeed engine at that stage.
        """
        engine = self.model_wrapped
        found = engine.zero_optimization_stage() if isinstance(engine, DeepSpeedEngine) else None
        if found != zero_stage or engine.world_size != self.accelerator.num_processes:
            raise RuntimeError(
                f"training must run on a DeepSpeedEngine at ZeRO stage {zero_stage}, not on "
                f"{type(engine).__name__} at {found}"
            )
        if zero_stage == 0 and not engine.bfloat16_enabled():
            engine.clip_fp32_gradients = functools.partial(_clip_and_keep_norm, engine)
        fields = {
            "engine": type(engine).__name__,
            "zeroStage": found,
            "worldSize": engine.world_size,
            "backend": dist.get_backend(),
            "passes": len(self._steps[0].passes[0]) if self._steps else 0,
            "packed": self._packs,
            "remembers": self._frozen is not None,
        }
        if self.accelerator.is_main_process:
            log.info("the engine is ready", extra={"fields": fields})

    # What GRPOTrainer does otherwise.

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 - TRL's
        return StepSampler(self._steps, padding=len(self._rows))

    def _prepare_inputs(self, generation_batch: list[dict[str, int]]) -> dict[str, Tensor]:
        """Return the next pass of the step, in its order: nothing is shuffled within a step."""
        passes = self.args.gradient_accumulation_steps
        size = self.args.per_device_train_batch_size
        start = self._step % passes * size
        return self._generate_and_score_completions(generation_batch[start : start + size])

    def _generate_and_score_completions(self, inputs: list[dict[str, int]]) -> dict[str, Tensor]:
        """Return what was recorded; nothing is generated."""
        rows = [PADDING if x["row"] == len(self._rows) else x["row"] for x in inputs]
        batch = self._batch(rows)
        width = batch["completion_ids"].size(1)
        if self._old is None:
            raise RuntimeError("the old log-probabilities are not there yet")
        batch["old_per_token_logps"] = self._gather(self._old, rows, width)
        advantages = torch.tensor(
            [0.0 if row == PADDING else self._rows.advantages[row] for row in rows],
            device=self.accelerator.device,
        )
        # The weight is positive, so times the advantage is times the clipped loss of the token.
        # (TRL multiplies the loss itself, but only where it runs vLLM.)
        batch["advantages"] = advantages.unsqueeze(1) * self._gather(self.weights, rows, width)
        if self._reference is not None:
            batch["ref_per_token_logps"] = self._gather(self._reference, rows, width)
        step, device = self._steps[self.state.global_step], self.accelerator.device
        batch["num_items_in_batch"] = torch.tensor(step.tokens, device=device)
        if self._imitation:
            told = [row != PADDING and bool(self._rows.imitated[row]) for row in rows]
            answers = torch.tensor(told, device=device).unsqueeze(1) * batch["completion_mask"]
            batch["answer_mask"] = answers
            batch["answer_tokens"] = torch.tensor(step.answers, device=device)
            # TRL's name for tokens that are read but have no part in its loss and figures
            batch["tool_mask"] = batch["completion_mask"] - answers
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return GRPO's loss, plus the weight times the answers' mean cross-entropy."""
        loss: Tensor = super()._compute_loss(model, inputs)
        if not self._imitation:
            return loss
        if self._logprobs is None:
            raise RuntimeError("the loss was worked out without the log-probabilities")
        surprise = -(self._logprobs * inputs["answer_mask"]).sum()
        self._logprobs = None
        tokens = inputs["answer_tokens"].clamp(min=1.0) / self.accelerator.num_processes
        self._metrics["train"]["imitation"].append(
            self.accelerator.gather((surprise / tokens).detach()).mean().item()
        )
        whole: Tensor = loss + self._imitation * surprise / tokens
        return whole

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return what GRPOTrainer asks for, and keep the log-probabilities for the imitation."""
        with self._products():
            found = self._read(model, input_ids, *args, **kwargs)
        if self._imitation:  # else nobody would let go of them
            self._logprobs = found[0]
        return found

    def _products(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: Accelerate has none for DeepSpeed on a CPU."""
        if self._bfloat16_products:
            return torch.autocast("cpu", torch.bfloat16)
        found: AbstractContextManager[Any] = self.accelerator.autocast()
        return found

    def _read(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the same as GRPOTrainer, with each prompt of the batch read once."""
        if not self._packs:
            found: tuple[Tensor, Tensor | None, Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    compute_aux_loss,
                    **multimodal,
                )
            )
            return found
        packed = self._packed
        if packed is None or packed.places.shape != (len(input_ids), logits_to_keep):
            raise RuntimeError("the batch is not the one that was packed last")
        with self._frozen.reading(packed) if self._frozen else nullcontext():
            logprobs, entropies = packed_logprobs(model, packed)
        return logprobs, entropies if compute_entropy else None, None

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Write none: the manifest says where a model comes from."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save nothing: DeepSpeed's own files hold a checkpoint's weights, and the stage saves
        the finished model.
        """

    # Rows as tensors.

    def _batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return a pass's prompts (padded left) and completions (right), and keep it packed."""
        filler = [self._tokenizer.pad_token_id]
        prompts = [filler if r == PADDING else self._rows.prompts[r].tolist() for r in rows]
        completions = [[] if r == PADDING else self._rows.completions[r].tolist() for r in rows]
        device = self.accelerator.device
        batch = {}
        for name, side, texts in (
            ("prompt", "left", prompts),
            ("completion", "right", completions),
        ):
            # at least one column: TRL slices `[:, -columns:]`
            ids = [torch.tensor(text, dtype=torch.long) for text in [*texts, filler]]
            mask = [torch.ones_like(text) for text in ids]
            padded = pad(ids, padding_value=filler[0], padding_side=side)[:-1]
            batch[f"{name}_ids"] = padded.to(device)
            batch[f"{name}_mask"] = pad(mask, padding_side=side)[:-1].to(device)
        if self._packs:
            width = batch["completion_ids"].size(1)
            self._packed = pack(prompts, completions, width, filler[0]).to(device)
        return batch

    def _gather(self, flat: npt.NDArray[np.float32], rows: Sequence[int], width: int) -> Tensor:
        """Return values of the rows' tokens, shape (rows, width), 0 where a row has ended."""
        out = np.zeros((len(rows), width), np.float32)
        offsets = self._rows.completions.offsets
        for index, row in enumerate(rows):
            if row != PADDING:
                values = flat[offsets[row] : offsets[row + 1]]
                out[index, : len(values)] = values
        return torch.from_numpy(out).to(self.accelerator.device)

    def _scatter(self, flat: Tensor, rows: Sequence[int], values: Tensor) -> None:
        """Write the rows' values to their places."""
        offsets = self._rows.completions.offsets
        for index, row in enumerate(rows):
            if row != PADDING:
                start, end = int(offsets[row]), int(offsets[row + 1])
                flat[start:end] = values[index, : end - start]
