"""The work of ``selfemo predict``: turns in parts, to a stream or to a file."""

from __future__ import annotations

import gzip
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from selfemo_api.spec import Context
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.inference.targets import PART_PROMPTS, Target
from selfemo_jobs.store.local_files import replacing
from selfemo_jobs.use_commands.prediction_inputs import InputDialogue
from selfemo_jobs.use_commands.prediction_log import PredictionLog
from selfemo_jobs.use_commands.prediction_outputs import OutputLayout, open_writer
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn


class PredictTurns(Protocol):
    """Predicts turns with a model, which is loaded when it is needed."""

    def load(self) -> object:
        """Load the model, if it is not loaded."""

    def __call__(self, targets: Sequence[Target]) -> Sequence[PredictedTurn]:
        """Return a predicted turn for each target, in order."""


def target_turns(dialogues: Iterable[InputDialogue], context: Context) -> Iterator[Target]:
    """Yield each turn of dialogues with its context. A dialogue may be longer than the memory.

    Parameters
    ----------
    dialogues
        The dialogues.
    context
        The number of turns around each turn.
    """
    for dialogue in dialogues:
        past: deque[Utterance] = deque(maxlen=context.past)
        turns = iter(dialogue.turns)
        ahead = deque(islice(turns, context.future + 1))
        number = 0
        while ahead:
            current = ahead.popleft()
            yield Target(dialogue.id, number, current, tuple(past), tuple(ahead))
            past.append(current)
            ahead.extend(islice(turns, 1))
            number += 1


@dataclass
class Progress:
    """What was predicted so far."""

    turns: int = 0
    """The number of turns."""
    dialogues: int = 0
    """The number of dialogues."""
    resumed: int = 0
    """The number of turns that an interrupted command had predicted."""
    seconds: float = 0.0
    """The time for the other turns, in seconds."""

    def counted(self, targets: Iterable[Target]) -> Iterator[Target]:
        """Yield targets, and count them and their dialogues."""
        for target in targets:
            self.turns += 1
            self.dialogues += target.utterance == 0
            yield target


def predict_to_stream(
    targets: Iterable[Target],
    predict: PredictTurns,
    stream: BinaryIO,
    layout: OutputLayout,
    *,
    part_turns: int = PART_PROMPTS,
) -> Progress:
    """Write the predictions for turns to a stream, part by part.

    Parameters
    ----------
    targets
        The turns.
    predict
        Predicts the turns of a part.
    stream
        The stream.
    layout
        What is written.
    part_turns
        The number of turns of a part, as of the evaluate stage: equal parts have equal batches, and
        so their results are equal to the last digit.

    Returns
    -------
    Progress
        The counts, and the time that the predictions took.
    """
    progress = Progress()
    writer = None
    for part in _parts(progress.counted(targets), part_turns):
        predicted = _timed(predict, part, progress)
        if writer is None:  # nothing is written before the first part is there
            writer = open_writer(stream, layout)
        writer.write(predicted)
        stream.flush()
    if writer is not None:
        writer.close()
        stream.flush()
    return progress


def predict_to_file(
    targets: Iterable[Target],
    predict: PredictTurns,
    file: Path,
    layout: OutputLayout,
    request: Mapping[str, Any],
    *,
    part_turns: int = PART_PROMPTS,
    report: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Write the predictions for turns to a file, and continue what was interrupted.

    Parameters
    ----------
    targets, predict, layout, part_turns
        As for :func:`predict_to_stream`.
    file
        The file. It is written whole or not at all. An ending of ``.gz`` compresses it.
    request
        What the predictions follow from; see :class:`PredictionLog`.
    report
        Is called after each part.

    Returns
    -------
    Progress
        The counts, and the time that the new predictions took.
    """
    progress = Progress()
    counted = progress.counted(targets)
    with PredictionLog(file, request) as log:
        progress.resumed = sum(1 for _ in islice(counted, log.turns))
        for part in _parts(counted, part_turns):
            log.append(_timed(predict, part, progress))
            report(progress)
        with replacing(file) as raw, _packed(raw, file) as stream:
            writer = open_writer(stream, layout)
            for turns in log.parts():
                writer.write(turns)
            writer.close()
        log.remove()
    return progress


def _parts(targets: Iterator[Target], size: int) -> Iterator[list[Target]]:
    return iter(lambda: list(islice(targets, size)), [])


def _timed(
    predict: PredictTurns, part: Sequence[Target], progress: Progress
) -> Sequence[PredictedTurn]:
    predict.load()
    start = time.monotonic()
    predicted = predict(part)
    progress.seconds += time.monotonic() - start
    return predicted


@contextmanager
def _packed(raw: BinaryIO, file: Path) -> Iterator[BinaryIO]:
    """Yield a stream that writes to a file, compressed if its name ends with ``.gz``."""
    if file.suffix.lower() != ".gz":
        yield raw
        return
    # without name and time, equal predictions give an equal file
    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        yield cast(BinaryIO, packed)
