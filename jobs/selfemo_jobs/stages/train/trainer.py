"""SELF-GRPO: TRL's ``GRPOTrainer`` on rollouts that were recorded before.

``GRPOTrainer`` generates completions, rewards them and trains. Here self-play, scoring and the
flywheel have done the first two. Two of its methods are therefore replaced: the sampler (which
follows the fixed order of :mod:`selfemo_jobs.stages.train.batches`) and
``_generate_and_score_completions`` (which returns the recorded data). The loss is described in
:mod:`selfemo_jobs.stages.train.loss`; see also docs/guides/training.md.

The replaced methods are private. The version of TRL is pinned, and tests check their signatures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from trl import GRPOTrainer

from selfemo_jobs.acceleration.frozen_layer_cache import MOST_BYTES, FrozenLayerCache, fits_cache
from selfemo_jobs.acceleration.last_layer import can_pack
from selfemo_jobs.acceleration.padded_rows import PaddedRows, row_logprobs
from selfemo_jobs.acceleration.prefix_packing import PackedBatch, packed_logprobs
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train import loss
from selfemo_jobs.stages.train.batches import PADDING, TrainingStep
from selfemo_jobs.stages.train.engine_check import check_engine
from selfemo_jobs.stages.train.rollout_data import RolloutData
from selfemo_jobs.stages.train.row_tensors import RowTensors
from selfemo_jobs.stages.train.step_sampler import StepSampler

log = logging.getLogger(__name__)


#: The figures of GRPOTrainer that are means over tokens.
_MEANS = ("entropy", "kl", *(f"clip_ratio/{of}_mean" for of in ("low", "high", "region")))


class SelfGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Trains on recorded rollouts.

    Call :meth:`set_logprobs` before the first step.

    Parameters
    ----------
    rollouts
        The rows to train on.
    steps
        The steps of the training, over row numbers of ``rollouts``.
    kl_beta
        Weight of the KL term. ``beta`` in the arguments must be 0, because TRL would load a second
        model otherwise. The log-probabilities of the reference are computed only once here.
    imitation
        Weight of the imitation term; 0 leaves it out.
    response_weight
        Weight of the imitated responses; it is used where ``rollouts`` has such rows.
    rate
        The factor of the learning rate of a step, counted from 0.
    bfloat16_products
        Whether the forward pass rounds the factors of its products to bfloat16, on a CPU.
    trained_layers
        Number of last layers that are trained, if the layers below may be cached. With None nothing
        is cached.
    *args, **kwargs
        Arguments of ``GRPOTrainer``, without ``reward_funcs``. The training dataset must have a
        column ``row`` with the row numbers, followed by one more number that stands for padding.
    """

    def __init__(
        self,
        *args: Any,
        rollouts: RolloutData,
        steps: Sequence[TrainingStep],
        kl_beta: float,
        imitation: float = 0.0,
        response_weight: float = 0.0,
        rate: Callable[[int], float] = lambda _step: 1.0,
        bfloat16_products: bool = False,
        trained_layers: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._rollouts = rollouts
        self._steps = steps
        self._old: npt.NDArray[np.float32] | None = None
        self._weights: npt.NDArray[np.float32] | None = None
        self._reference: npt.NDArray[np.float32] | None = None
        self._batch: PackedBatch | PaddedRows | None = None
        self._imitation = imitation
        self._response_weight = response_weight if rollouts.responses else 0.0
        self._rate = rate
        self._bfloat16_products = bfloat16_products
        self._logprobs: Tensor | None = None  # of the micro-batch whose loss is computed
        super().__init__(*args, reward_funcs=_no_reward, **kwargs)
        self.beta = kl_beta
        self._can_pack = can_pack(self.model.config)
        filler, device = self._tokenizer.pad_token_id, self.accelerator.device
        self._rows = RowTensors(rollouts, filler, device, can_pack=self._can_pack)
        self._frozen: FrozenLayerCache | None = None
        if trained_layers and self._can_pack:
            self._frozen = self._make_frozen_layer_cache(trained_layers)

    def _make_frozen_layer_cache(self, trained_layers: int) -> FrozenLayerCache | None:
        """Return the cache of the layers that are not trained, or None if it would be too large."""
        prompts, completions = self._rollouts.prompts.lengths, self._rollouts.completions.lengths
        tokens = sum(int(prompts[g[0]]) + int(completions[g].sum()) for g in self._rollouts.groups)
        itemsize = 4 if self._bfloat16_products else self.model.dtype.itemsize
        if fits_cache(tokens, self.model.config.hidden_size, itemsize):
            most = MOST_BYTES // (self.model.config.hidden_size * itemsize)
            return FrozenLayerCache(self.model, trained_layers, most)
        return None

    def set_logprobs(
        self,
        old: npt.NDArray[np.float32],
        reference: npt.NDArray[np.float32] | None,
        importance_cap: float,
    ) -> None:
        """Set the log-probabilities that do not change during training.

        Parameters
        ----------
        old
            Log-probabilities under the policy as training starts; shape (tokens,), for the
            completion tokens of all rows in order.
        reference
            Log-probabilities under the reference, of the same shape. None if ``kl_beta`` is 0.
        importance_cap
            Largest importance weight.
        """
        self._old, self._reference = old, reference
        sampled = self._rollouts.logprobs.values
        self._weights = loss.importance_weights(old, sampled, importance_cap)

    @property
    def importance_weights(self) -> npt.NDArray[np.float32]:
        """Importance weights of the completion tokens of all rows in order; shape (tokens,)."""
        if self._weights is None:
            raise RuntimeError("the old log-probabilities are not set")
        return self._weights

    def compute_logprobs(self, model: Any) -> npt.NDArray[np.float32]:
        """Return the log-probabilities of the rows' completion tokens under a model.

        The rows are read in the micro-batches of the first epoch, as in training. With unchanged
        weights the ratio of the loss is therefore exactly 1. Tokens of rows that no step uses have
        the value 0.

        Parameters
        ----------
        model
            The policy, or its DeepSpeed engine, or the reference.

        Returns
        -------
        numpy.ndarray
            Natural logarithms; shape (tokens,), for the completion tokens of all rows in order.

        Raises
        ------
        BadInput
            If a value is not finite.
        """
        flat = torch.zeros(int(self._rollouts.completions.offsets[-1]), dtype=torch.float32)
        for rows, logprobs in self._read_steps(model, self._first_epoch()):
            self._rows.write(flat, rows, logprobs.float().cpu())
        if self.accelerator.num_processes > 1:
            # one process has a row's values and the others have zeros, so the sum is exact
            shared = flat.to(self.accelerator.device)
            dist.all_reduce(shared)
            flat = shared.cpu()
        if not torch.isfinite(flat).all():
            raise BadInput("the policy gives log-probabilities that are not finite: it is broken")
        return flat.numpy()

    def refill_cache(self, model: Any, done: int) -> None:
        """Cache again what a training has cached before its checkpoint, to the last bit.

        The states of a group have other roundings beside other groups. So each is read in the
        micro-batch in which it was read first.

        Parameters
        ----------
        model
            The policy, or its DeepSpeed engine.
        done
            The number of steps before the checkpoint.
        """
        if self._frozen is not None:
            steps = chain(self._first_epoch(), islice(self._steps, done))
            for _ in self._read_steps(model, steps, unless=self._frozen.has_nothing_new):
                pass

    def _first_epoch(self) -> Iterator[TrainingStep]:
        return takewhile(lambda step: step.epoch == 0, self._steps)

    @torch.no_grad()
    def _read_steps(
        self,
        model: Any,
        steps: Iterable[TrainingStep],
        unless: Callable[[Any], bool] = lambda _batch: False,
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield the rows of this process's micro-batches, and their tokens' log-probabilities.

        Parameters
        ----------
        model
            The model, or its DeepSpeed engine.
        steps
            The steps with the micro-batches.
        unless
            Whether a micro-batch, in the form in which the model reads it, is left out.
        """
        training = model.training
        model.eval()
        for rows in (r for s in steps for r in s.micro_batches[self.accelerator.process_index]):
            batch = self._read_texts(rows)
            if not unless(self._batch):
                logprobs, _, _ = self._get_per_token_logps_and_entropies(
                    model,
                    torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
                    torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
                    batch["completion_ids"].size(1),
                )
                yield rows, logprobs
        model.train(training)

    def check_engine(self, zero_stage: int) -> None:
        """Check that DeepSpeed trains the model, and log its settings. Raises RuntimeError.

        Parameters
        ----------
        zero_stage
            The ZeRO stage of the spec.
        """
        fields = {
            **check_engine(self.model_wrapped, zero_stage, self.accelerator.num_processes),
            "passes": len(self._steps[0].micro_batches[0]) if self._steps else 0,
            "packed": self._can_pack,
            "remembers": self._frozen is not None,
        }
        if self.accelerator.is_main_process:
            log.info("the engine is ready", extra={"fields": fields})

    # Methods of GRPOTrainer that are replaced.

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 - TRL's
        return StepSampler(self._steps, padding=len(self._rollouts))

    def create_scheduler(
        self,
        num_training_steps: int,  # noqa: ARG002 - TRL's
        optimizer: Optimizer | None = None,
    ) -> LambdaLR:
        """Return the schedule of the learning rate. Those of Transformers begin with 0."""
        schedule: LambdaLR | None = self.lr_scheduler  # type: ignore[has-type]
        if schedule is None:
            schedule = LambdaLR(optimizer or self.optimizer, self._rate)
            self.lr_scheduler, self._created_lr_scheduler = schedule, True
        return schedule

    def _prepare_inputs(self, generation_batch: list[dict[str, int]]) -> dict[str, Tensor]:
        """Return the next micro-batch of the step, in the planned order without shuffling."""
        accumulation = self.args.gradient_accumulation_steps
        size = self.args.per_device_train_batch_size
        start = self._step % accumulation * size
        return self._generate_and_score_completions(generation_batch[start : start + size])

    def _generate_and_score_completions(self, inputs: list[dict[str, int]]) -> dict[str, Tensor]:
        """Return the recorded data of some rows; nothing is generated."""
        rows = [PADDING if x["row"] == len(self._rollouts) else x["row"] for x in inputs]
        batch = self._read_texts(rows)
        width = batch["completion_ids"].size(1)
        if self._old is None:
            raise RuntimeError("the old log-probabilities are not set")
        batch["old_per_token_logps"] = self._rows.values(self._old, rows, width)
        advantages = torch.tensor(
            [0.0 if row == PADDING else self._rollouts.advantages[row] for row in rows],
            device=self.accelerator.device,
        )
        weights = self._rows.values(self.importance_weights, rows, width)
        batch["advantages"] = loss.weighted_advantages(advantages, weights)
        if self._reference is not None:
            batch["ref_per_token_logps"] = self._rows.values(self._reference, rows, width)
        step, device = self._steps[self.state.global_step], self.accelerator.device
        # a step may have imitated responses alone
        batch["num_items_in_batch"] = torch.tensor(max(1, step.sampled_tokens), device=device)
        if self._imitation:
            imitated = [row != PADDING and bool(self._rollouts.imitated[row]) for row in rows]
            mask = torch.tensor(imitated, device=device).unsqueeze(1) * batch["completion_mask"]
            # TRL's name for tokens that are read but are not in its loss and metrics
            batch["tool_mask"] = batch["completion_mask"] - mask
            loss.bound_ratios(batch, mask.bool())
            responses = self._rollouts.responses
            is_response = torch.tensor([row in responses for row in rows], device=device)
            batch["response_mask"] = mask * is_response.unsqueeze(1)
            batch["response_tokens"] = torch.tensor(step.response_tokens, device=device)
            batch["imitation_mask"] = mask - batch["response_mask"]
            batch["imitated_tokens"] = torch.tensor(step.imitated_tokens, device=device)
        return batch

    def _read_texts(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the texts of some rows, and store the form in which the model reads them."""
        batch, self._batch = self._rows.texts(rows)
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the loss of GRPO plus the imitation term."""
        grpo_loss: Tensor = super()._compute_loss(model, inputs)
        self._weigh_means(inputs)
        if not self._imitation:
            return grpo_loss
        total = grpo_loss + self._imitation_loss(inputs, "imitation", "imitated", self._imitation)
        if self._response_weight:
            weight = self._response_weight
            total = total + self._imitation_loss(inputs, "response", "response", weight)
        self._logprobs = None
        return total

    def _weigh_means(self, inputs: dict[str, Tensor]) -> None:
        """Weigh the means that GRPOTrainer has just recorded by the tokens of the micro-batch.

        It takes their mean over the micro-batches of a step, of which some may be padding alone.
        """
        mask = inputs.get("tool_mask", inputs["completion_mask"])
        tokens = self.accelerator.gather(mask.sum()).sum().item()
        step = self._steps[self.state.global_step]
        weight = tokens * self.args.gradient_accumulation_steps / max(1, step.sampled_tokens)
        for name in _MEANS:
            if values := self._metrics["train"].get(name):
                values[-1] = weight * values[-1] if tokens else 0.0

    def _imitation_loss(
        self, inputs: dict[str, Tensor], name: str, tokens: str, weight: float
    ) -> Tensor:
        """Return the weighted term of the imitated answers or responses, and record its mean."""
        if self._logprobs is None:
            raise RuntimeError("GRPOTrainer computed its loss without the log-probabilities")
        # the gradients of the processes are averaged, so each divides by its share of the tokens
        share = inputs[f"{tokens}_tokens"].clamp(min=1.0) / self.accelerator.num_processes
        term, cross_entropy = loss.imitation_term(
            self._logprobs, inputs[f"{name}_mask"], share, weight
        )
        # the log has the mean over micro-batches, of which each has a share of the step's tokens
        part = self.accelerator.gather(cross_entropy).mean().item()
        self._metrics["train"][name].append(self.args.gradient_accumulation_steps * part)
        return term

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return what GRPOTrainer expects, and store the log-probabilities for the imitation."""
        with self._autocast():
            outputs = self._read_model(model, input_ids, *args, **kwargs)
        if self._imitation:  # otherwise the tensor would stay in memory
            self._logprobs = outputs[0]
        return outputs

    def _autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: Accelerate has none for DeepSpeed on a CPU."""
        if self._bfloat16_products:
            return torch.autocast("cpu", torch.bfloat16)
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def _read_model(
        self,
        model: Any,
        input_ids: Tensor,
        _attention_mask: Tensor,
        logits_to_keep: int,
        _batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_multimodal: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return log-probabilities and entropies, where each prompt is read once if possible.

        TRL's own method pads prompts on the left. Models that number the columns would then read
        them at other positions than self-play.
        """
        batch = self._batch
        if batch is None or batch.places.shape != (len(input_ids), logits_to_keep):
            raise RuntimeError("the batch is not the one that was made last")
        auxiliary_loss = None
        if isinstance(batch, PaddedRows):
            logprobs, entropies, auxiliary_loss = row_logprobs(
                model, batch, auxiliary_loss=compute_aux_loss
            )
        else:
            with self._frozen.reading(batch) if self._frozen else nullcontext():
                logprobs, entropies = packed_logprobs(model, batch)
        return logprobs, entropies if compute_entropy else None, auxiliary_loss

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Write no model card: the manifest states where a model comes from."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save nothing: DeepSpeed's files hold the weights of a checkpoint, and the training loop
        writes the finished model.
        """


def _no_reward(*_args: Any, **_kwargs: Any) -> list[float]:
    """Stand for the reward function that GRPOTrainer requires; advantages are recorded."""
    raise RuntimeError("no reward is computed while training")
