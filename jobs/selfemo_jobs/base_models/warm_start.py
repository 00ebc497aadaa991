"""The warm start: supervised training on a labeled share, which makes the model of generation 0.

Both roles are trained. The recognizer learns to answer with the labels. The responder learns to say
what the speaker said next, given the label of it. The loss counts the tokens of completions only.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_api.spec import View
from selfemo_jobs.acceleration.last_layer import last_mlp_at
from selfemo_jobs.base_models.warm_start_options import WarmStartOptions
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.prompts.sets import PromptSet

log = logging.getLogger(__name__)

#: The target of tokens that have no loss, as PyTorch's cross-entropy has it.
IGNORED = -100
#: Examples that are read at once. Few have similar lengths; more make products faster.
_AT_ONCE = 8
#: The share of the steps in which the learning rate rises from 0.
WARMUP = 0.1
#: Gradients with a larger norm are scaled down to it.
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Example:
    """A prompt with the completion to learn."""

    prompt: tuple[int, ...]
    """Token ids of the prompt."""
    completion: tuple[int, ...]
    """Token ids of the completion."""


def examples_of(
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    options: WarmStartOptions,
) -> tuple[list[Example], list[Example]]:
    """Return the recognizer's and the responder's examples, in the order of the dialogues.

    Parameters
    ----------
    dialogues
        The labeled dialogues. Utterances without labels give no examples.
    labels
        The label set.
    prompts
        The prompt set.
    tokenizer
        The model's tokenizer.
    options
        The views, the context and the length of prompts.

    Raises
    ------
    BadInput
        If a prompt is too long without any other turn.
    """
    recognizer, responder = [], []
    most = options.max_prompt_tokens
    views = options.views or (View(past=options.past),)
    for dialogue in dialogues:
        for index, turn in enumerate(dialogue.turns):
            if not turn.labels:
                continue
            answer = prompts.encode_completion(tokenizer, prompts.recognizer_text(turn.labels))
            for view in views:
                prompt = prompts.recognizer_ids(
                    tokenizer,
                    dialogue.turns[max(0, index - view.past) : index],
                    turn.speaker,
                    turn.text,
                    labels,
                    dialogue.turns[index + 1 : index + 1 + view.future],
                    max_tokens=most,
                )
                recognizer.append(Example(tuple(prompt), tuple(answer)))
            context = dialogue.turns[max(0, index - options.past) : index]
            if not context:
                continue
            prompt = prompts.responder_ids(
                tokenizer, context, turn.speaker, turn.labels, labels, max_tokens=most
            )
            reply = prompts.encode_completion(tokenizer, prompts.responder_text(turn.text))
            responder.append(Example(tuple(prompt), tuple(reply)))
    return recognizer, responder


def warm_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recognizer: Sequence[Example],
    responder: Sequence[Example],
    options: WarmStartOptions,
) -> float:
    """Train a model in place; return the mean loss of the last tenth of the steps.

    The same model, examples and options give the same weights on the same machine.

    Parameters
    ----------
    model
        The model, in float32 on the CPU.
    tokenizer
        Its tokenizer.
    recognizer
        The recognizer's examples, at least one.
    responder
        The responder's examples. Without any, all examples of a batch are the recognizer's.
    options
        How the weights are trained.

    Raises
    ------
    BadInput
        If there are no examples, or the model cannot be trained as the options say.
    """
    if not recognizer:
        raise BadInput("the source has no labeled utterance: nothing can be learned from it")
    torch.manual_seed(options.seed)
    if options.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
        model.get_output_embeddings().requires_grad_(False)
    if options.train_layers is not None:
        train_last_layers(model, options.train_layers, "--train-layers")
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, options))
    model.train()
    losses: list[float] = []
    for step, batch in enumerate(_batches(recognizer, responder, options)):
        loss = _backward(model, batch, tokenizer.pad_token_id)
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
        if (step + 1) % 10 == 0 or step + 1 == options.steps:
            fields = {
                ProgressField.DONE: step + 1,
                ProgressField.TOTAL: options.steps,
                ProgressField.LOSS: round(losses[-1], 4),
            }
            log.info(PROGRESS_MESSAGE, extra={"fields": fields})
    model.eval()
    model.requires_grad_(True)
    last = losses[-max(1, options.steps // 10) :]
    return sum(last) / len(last)


def _backward(model: PreTrainedModel, batch: Sequence[Sequence[Example]], pad: int) -> float:
    """Add the gradients of a batch; return its loss, the mean over examples of their mean losses.

    Each example counts the same. Otherwise a reply of thirty words would outweigh ten answers of
    one word. The model reads the roles one after the other, sorted by length, to save padding.

    Parameters
    ----------
    model
        The model.
    batch
        The examples of each role.
    pad
        The token id of padding.
    """
    examples = sum(len(role) for role in batch)
    total = 0.0
    for role in batch:
        by_length = sorted(role, key=lambda e: len(e.prompt) + len(e.completion))
        for start in range(0, len(role), _AT_ONCE):
            loss = _losses(model, by_length[start : start + _AT_ONCE], pad).sum() / examples
            torch.autograd.backward(loss)
            total += loss.item()
    return total


def _rate(step: int, options: WarmStartOptions) -> float:
    """Return the factor of the learning rate at a step: it rises linearly, then falls to zero."""
    rise = max(1, int(options.steps * WARMUP))
    return min((step + 1) / rise, max(0.0, (options.steps - step) / (options.steps - rise + 1)))


def _batches(
    recognizer: Sequence[Example], responder: Sequence[Example], options: WarmStartOptions
) -> Iterator[tuple[list[Example], list[Example]]]:
    """Yield the batch of each step, by role. Each pass over the examples has a new order."""
    chance = random.Random(options.seed)
    recognizer_examples = _endless(recognizer, chance)
    responder_examples = _endless(responder, chance) if responder else recognizer_examples
    replies = round(options.batch_size * options.responder_share)
    for _ in range(options.steps):
        yield (
            [next(recognizer_examples) for _ in range(options.batch_size - replies)],
            [next(responder_examples) for _ in range(replies)],
        )


def _endless(examples: Sequence[Example], chance: random.Random) -> Iterator[Example]:
    """Yield examples without end, each pass in a new order."""
    order = list(range(len(examples)))
    while True:
        chance.shuffle(order)
        yield from (examples[i] for i in order)


def _losses(model: PreTrainedModel, batch: Sequence[Example], pad: int) -> torch.Tensor:
    """Return the mean loss of each example's completion tokens, shape (examples,).

    Examples are padded on the left, so all completions end at the last position. Only the last
    logits are computed: with a large vocabulary this saves half of the work.
    """
    longest = max(len(e.prompt) + len(e.completion) for e in batch)
    ids = torch.full((len(batch), longest), pad)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for row, example in enumerate(batch):
        text = torch.tensor([*example.prompt, *example.completion])
        ids[row, -len(text) :] = text
        mask[row, -len(text) :] = 1
        targets[row, -len(example.completion) :] = text[len(example.prompt) :]
    kept = max(len(e.completion) for e in batch) + 1
    predicting = (targets != IGNORED).roll(-1, dims=1)  # each token predicts the next one
    with last_mlp_at(model, predicting):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=kept,
        ).logits[:, :-1]
    completion_targets = targets[:, -kept + 1 :]
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), completion_targets, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1) / (completion_targets != IGNORED).sum(1)


def share_of(dialogues: int, share: float) -> int:
    """Return the number of dialogues in a share, at least one.

    Parameters
    ----------
    dialogues
        The number of all dialogues.
    share
        The share, in (0, 1].

    Examples
    --------
    >>> share_of(1038, 0.1)
    104
    """
    return max(1, round(dialogues * share))
