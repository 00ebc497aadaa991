"""The turns that were really said, which the responder imitates given the recognizer's reading.

A real dialogue has the responder's target without any label: the speaker's own words. The consensus
of a kept group, or its gold labels, is the emotion that the responder is asked for. So the
recognizer teaches the responder. (Templates filled with pseudo-labels: Shi and Lipani 2023, arXiv
2305.01711. That the other role fills them is ours.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.stages.train.collected_rows import CollectedRows, read_collected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfemo_jobs.prompts.sets import PromptSet

_FILE = "spoken.arrow"
_COLUMNS = ("group_id", "context", "speaker", "target", "consensus")


@dataclass(frozen=True)
class SpokenTurn:
    """A turn of a source, with the emotions that it was read as."""

    context: tuple[Utterance, ...]
    """The turns before it, at least one."""
    speaker: str
    text: str
    emotions: tuple[str, ...]
    """The consensus or the gold labels."""

    def example(
        self,
        prompts: PromptSet,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_prompt_tokens: int,
        max_response_tokens: int,
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of the responder's prompt and of the turn, as a warm start has them.

        Parameters
        ----------
        prompts
            The prompt set.
        tokenizer
            The model's tokenizer.
        labels
            The label set.
        max_prompt_tokens
            The most tokens of the prompt. A longer one loses its oldest turns.
        max_response_tokens
            The most tokens of the turn. A longer one loses its end.
        """
        prompt = prompts.responder_ids(
            tokenizer, self.context, self.speaker, self.emotions, labels,
            max_tokens=max_prompt_tokens,
        )  # fmt: skip
        turn = prompts.encode_completion(tokenizer, prompts.responder_text(self.text))
        return prompt, turn[:max_response_tokens]


class SpokenTurns(CollectedRows):
    """Collects the turns of scored tables."""

    file = _FILE

    def choose(self, table: pa.Table) -> pa.Table:
        """Return a row for each recognizer group whose target is a source's turn after another one.

        A turn that self-play appended is the responder's own. The warm start leaves out first
        turns, too: nothing is answered there.
        """
        chosen = pc.and_(
            pc.and_(
                pc.equal(table["role"], Role.RECOGNIZER.value),
                pc.equal(table["member"], 0),
            ),
            pc.and_(
                pc.equal(table["turn"], 0),
                pc.and_(
                    pc.greater(pc.list_value_length(table["context"]), 0),
                    pc.greater(pc.list_value_length(table["consensus"]), 0),
                ),
            ),
        )
        return table.filter(chosen).select(_COLUMNS)


def turn_examples(
    turns: Iterable[SpokenTurn],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    max_prompt_tokens: int,
    max_response_tokens: int,
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the token ids of the prompt and of the turn, for each turn whose prompt fits.

    A consensus of several emotions may make a prompt too long. Its turn is left out: there is
    enough else to imitate.

    Parameters
    ----------
    turns
        The turns.
    prompts, tokenizer, labels, max_prompt_tokens, max_response_tokens
        See :meth:`SpokenTurn.example`.
    """
    for turn in turns:
        with contextlib.suppress(PromptTooLong):
            yield turn.example(prompts, tokenizer, labels, max_prompt_tokens, max_response_tokens)


def read_spoken_turns(folder: Path) -> Iterator[SpokenTurn]:
    """Yield the turns in a folder; none if they were not collected.

    Parameters
    ----------
    folder
        The folder of :meth:`SpokenTurns.write`.
    """
    for row in read_collected(folder, _FILE):
        context = tuple(Utterance(turn["speaker"], turn["text"]) for turn in row["context"])
        yield SpokenTurn(context, row["speaker"], row["target"], tuple(row["consensus"]))
