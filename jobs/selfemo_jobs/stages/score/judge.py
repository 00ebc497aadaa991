"""The frozen judge reads: prompts out, label sets in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts.answers import parse_labels
from selfemo_jobs.prompts.sets import load_prompt_set
from selfemo_jobs.rewards.label_sets import Masks, encode_label_sets
from selfemo_jobs.stages.score.candidates import Rows, groups_of
from selfemo_jobs.stages.score.scoring import Readings

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

Prompt = tuple[int, ...]
#: Prompt of a response that says nothing: it is not read, and expresses nothing.
NOTHING: Prompt = ()


class JudgeReader:
    """Reads targets and responses with one loaded model.

    Parameters
    ----------
    engine
        The judge.
    spec
        The evolution's spec: prompts, labels, sampling.
    """

    def __init__(self, engine: TextEngine, spec: EvolutionSpec) -> None:
        self._engine = engine
        self._spec = spec
        self._prompts = load_prompt_set(spec.model.prompts)

    def read(self, table: pa.Table, seed: int, where: str) -> Readings:
        """Return the judge's readings of one part.

        A target is read in each view of the spec, or by the very prompt that the group was given; a
        response as its speaker's turn after the same context. Equal prompts are read once: equal
        responses then get equal rewards.

        Parameters
        ----------
        table
            Candidates.
        seed
            Of this part's draws.
        where
            The part's URI, for messages.
        """
        spec = self._spec
        groups = groups_of(table, spec.self_play.group_size, where)
        wanted: list[Prompt] = []
        votes = spec.reward.judge.weight > 0.0
        if votes:
            wanted += self._target_prompts(table, groups.recognizer[:, 0], where)
        targets = len(wanted)
        wanted += self._response_prompts(table, groups.responder)
        sets = self._sets(wanted, seed)
        size, samples = spec.self_play.group_size, spec.reward.judge.samples
        readings = max(1, len(spec.reward.judge.views)) * samples
        return Readings(
            targets=sets[:targets].reshape(-1, readings) if votes else None,
            responses=sets[targets:].reshape(-1, size, samples),
        )

    def _target_prompts(self, table: pa.Table, rows: Rows, where: str) -> list[Prompt]:
        """Return the prompts of each target, one group after the other."""
        views = len(self._spec.reward.judge.views)
        if not views:
            return [tuple(table["prompt_ids"][int(row)].as_py()) for row in rows]
        prompts: list[Prompt] = []
        for row in rows:
            found = table["views"][int(row)].as_py()
            if len(found) != views:
                raise BadInput(
                    f"{where}: row {int(row) + 1}: `views` has {len(found)} prompts where "
                    f"`reward.judge.views` has {views}: run self-play again"
                )
            prompts += [tuple(prompt) for prompt in found]
        return prompts

    def _response_prompts(self, table: pa.Table, rows: Rows) -> list[Prompt]:
        past = self._spec.dataset.context.past
        prompts = []
        for group in rows:
            turns = table["context"][int(group[0])].as_py()
            seen = turns[max(0, len(turns) - past) :]
            context = [Utterance(t["speaker"], t["text"]) for t in seen]
            speaker = table["speaker"][int(group[0])].as_py()
            for row in group:
                text = table["completion"][int(row)].as_py().strip()
                prompts.append(self._prompt(context, speaker, text) if text else NOTHING)
        return prompts

    def _prompt(self, context: Sequence[Utterance], speaker: str, text: str) -> Prompt:
        return tuple(
            self._prompts.recognise_ids(
                self._engine.tokenizer,
                context,
                speaker,
                text,
                self._spec.dataset.labels,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        )

    def _sets(self, wanted: Sequence[Prompt], seed: int) -> Masks:
        """Return the label sets read at each prompt; shape (prompts, samples)."""
        spec = self._spec
        samples = spec.reward.judge.samples
        distinct = list(dict.fromkeys(prompt for prompt in wanted if prompt != NOTHING))
        sampling = Sampling(
            n=samples,
            temperature=spec.self_play.temperature,
            top_p=spec.self_play.top_p,
            max_tokens=spec.reading_tokens,
            stop=self._prompts.stop(Role.RECOGNIZER),
            seed=seed,
        )
        completions = self._engine.generate(distinct, sampling) if distinct else []
        labels = spec.dataset.labels
        read: dict[Prompt, list[tuple[str, ...]]] = {NOTHING: [()] * samples}
        for prompt, found in zip(distinct, completions, strict=True):
            read[prompt] = [parse_labels(c.text, labels).labels for c in found]
        sets = [named for prompt in wanted for named in read[prompt]]
        return encode_label_sets(sets, labels).reshape(-1, samples)
