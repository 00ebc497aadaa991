"""Controls that train without the evolution: more supervised steps, all labels, majority votes."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.contract import StageConfig
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.text.files import write_atomically
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.prompts import parse_labels
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.store import open_store
from selfemo_study.programs import dialogues_of, run_stage
from selfemo_study.row_record import BASELINE, CONTROL, DEV, TEST, Answers, Generation, RowResult
from selfemo_study.row_work import Work
from selfemo_study.study_config import Kind, StudyError

#: An utterance: source, dialogue, index.
Place = tuple[str, str, int]


@dataclass(frozen=True)
class Lesson:
    """What a control learns from."""

    model: Path
    """Where it starts."""
    dialogues: int
    steps: int
    batch_size: int
    responder_share: float
    source: Path | None = None
    seconds: Mapping[str, float] | None = None
    """Of what came before the training."""
    note: str = ""


def run_supervised(work: Work) -> RowResult:
    """Do one of the three; each learning rate is trained, and dev chooses."""
    lesson = {
        Kind.SUPERVISED: _more,
        Kind.CEILING: _everything,
        Kind.MAJORITY: _votes,
    }[work.row.kind](work)
    trained = []
    for rate in work.row.learning_rates:
        output = _rate_folder(work, rate)
        seconds = work.supervised(
            lesson.model,
            output,
            lesson.dialogues,
            lesson.steps,
            rate,
            responder_share=lesson.responder_share,
            batch_size=lesson.batch_size,
            source=lesson.source,
        )
        trained.append((work.dev(output), rate, output, seconds))
    dev, rate, model, seconds = max(trained, key=lambda t: t[0].f1)
    zero = work.generation_zero()
    answers: Answers = {
        (0, DEV): work.dev(zero),
        (1, DEV): dev,
        (0, TEST): work.test(zero),
        (1, TEST): work.test(model),
    }
    tried = ", ".join(f"{r:g}: {d.f1:.4f}" for d, r, _, _ in trained)
    spent = {
        **(lesson.seconds or {}),
        Stage.TRAIN.value: seconds,
        Stage.EVALUATE.value: dev.seconds,
    }
    examples = lesson.steps * lesson.batch_size
    result = work.finish(
        [
            Generation(generation=0, outcome=BASELINE),
            Generation(
                generation=1, outcome=CONTROL, seconds=spent, steps=lesson.steps, examples=examples
            ),
        ],
        answers,
        best=1,
        message=f"learning rate {rate:g} by dev ({tried}){lesson.note}",
    )
    if not work.study.keep_models:
        for _, _, other, _ in trained:
            if other != model:
                shutil.rmtree(other)
    return result


def chosen_model(work: Work) -> Path:
    """Return the model that dev chose. Raises StudyError where the row is not finished here."""
    trained = [_rate_folder(work, rate) for rate in work.row.learning_rates]
    there = [model for model in trained if model.is_dir()]
    if work.folder.read() is None or not there:
        raise StudyError(
            f"row {work.row.name}, seed {work.seed} has no model here: delete {work.folder.path} "
            "and run it again"
        )
    # all are there with `keepModels` alone; their answers on dev are kept too
    return there[0] if len(there) == 1 else max(there, key=lambda model: work.dev(model).f1)


def _rate_folder(work: Work, rate: float) -> Path:
    return (work.folder.path / "models" / f"rate-{rate:g}").absolute()


def _more(work: Work) -> Lesson:
    start = work.study.warm_start
    return Lesson(
        model=work.generation_zero(),
        dialogues=work.share,
        steps=work.steps(),
        batch_size=start.batch_size,
        responder_share=start.responder_share,
    )


def _everything(work: Work) -> Lesson:
    start = work.study.warm_start
    return Lesson(
        model=work.base_model(),
        dialogues=len(work.training),
        steps=work.steps(),
        batch_size=start.batch_size,
        responder_share=start.responder_share,
    )


def _votes(work: Work) -> Lesson:
    """Have generation 0 play all that the evolution played, and take its votes for labels."""
    model = work.like()
    tables, seconds = [], 0.0
    for generation in range(1, len(model.generations)):
        table, spent = _play(work, generation)
        tables.append(table)
        seconds += spent
    labels = work.like_spec.dataset.labels
    named = majority(pa.concat_tables(tables), labels)
    file = work.folder.path / "votes.jsonl"
    count = _write_votes(work, named, file)
    return Lesson(
        model=work.generation_zero(),
        dialogues=count,
        steps=work.steps(),
        batch_size=utterances_of_step(work.like_spec),
        responder_share=0.0,
        source=file.absolute(),
        seconds={Stage.SELF_PLAY.value: seconds},
        note=f"; {len(named)} utterances with a vote",
    )


def utterances_of_step(spec: EvolutionSpec) -> int:
    """Return how many groups, each of one utterance, the evolution trains on in a step; pure.

    A group has its candidates, and the answer where that is imitated.
    """
    group = spec.self_play.group_size + (1 if spec.training.imitation > 0.0 else 0)
    return max(1, spec.training.batch_size // group)


def _play(work: Work, generation: int) -> tuple[pa.Table, float]:
    """Return what generation 0 reads where the evolution's generation played, and the seconds.

    The stage's seed is the evolution's, so dialogues and targets are the same.
    """
    folder = work.folder.path.absolute()
    spec = work.like_spec
    play = spec.self_play.model_copy(update={"roles": [Role.RECOGNIZER]})
    storage = spec.storage.model_copy(update={"uri": (folder / "store").as_uri()})
    spec = spec.model_copy(update={"self_play": play, "storage": storage})
    stored = stored_play(work, generation)
    output = stored or folder / "store" / "votes" / stage_prefix(generation, Stage.SELF_PLAY)
    if not (output / MANIFEST).is_file():
        model = work.generation_zero().as_uri()
        config = StageConfig(
            stage=Stage.SELF_PLAY,
            run=f"study/{work.row.name}",
            generation=generation,
            seed=stage_seed(spec.seed, generation, Stage.SELF_PLAY),
            spec=spec,
            policy_uri=model,
            judge_uri=model,
            output=output.as_uri(),
        )
        run_stage(config, folder / "selfplay", work.data)
    store = open_store(spec.storage)
    manifest, _ = read_manifest(store, (output / MANIFEST).as_uri())
    tables = read_tables(store, (output / MANIFEST).as_uri(), manifest, CANDIDATES)
    spent = json.loads((output / "run.json").read_text())["seconds"]
    return pa.concat_tables(tables), float(spent)


def stored_play(work: Work, generation: int) -> Path | None:
    """Return where the evolution has stored the same play: its first is generation 0's own."""
    if generation != 1 or work.like_spec.self_play.roles != [Role.RECOGNIZER]:
        return None
    row = work.study.row(work.study.model_of(work.row))
    run = work.places.run(work.study, row, work.seed)
    there = (run / stage_prefix(generation, Stage.SELF_PLAY)).absolute()
    return there if (there / MANIFEST).is_file() else None


def majority(table: pa.Table, labels: Sequence[str]) -> dict[Place, str]:
    """Return the label that most candidates name first, for each utterance; pure.

    Equals are settled by the order of the label set. An utterance for which no candidate names a
    label has none.
    """
    votes: defaultdict[Place, Counter[str]] = defaultdict(Counter)
    columns = ("source", "dialogue_id", "utterance", "completion")
    for source, dialogue, utterance, text in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        first = parse_labels(text, labels).first
        if first is not None:
            votes[source, dialogue, utterance][first] += 1
    return {place: max(labels, key=lambda e: count[e]) for place, count in votes.items()}


def _write_votes(work: Work, named: Mapping[Place, str], file: Path) -> int:
    """Write the dialogues with the votes as their only labels; return how many there are.

    A source whose labels the evolution may read keeps them.
    """
    lines: list[str] = []
    for source in work.like_spec.dataset.self_play:
        dialogues = dialogues_of(
            source, work.like_spec.dataset.labels, work.data, read_labels=source.use_labels
        )
        known = gold(source.name, dialogues) if source.use_labels else named
        lines += voted_lines(source.name, dialogues, known)
    if not lines:
        raise StudyError("no utterance has a vote: generation 0 names no label")
    write_atomically(file, "".join(lines))
    return len(lines)


def gold(source: str, dialogues: Iterable[Dialogue]) -> dict[Place, str]:
    """Return the first label of each utterance that has one; pure."""
    return {
        (source, dialogue.id, index): turn.labels[0]
        for dialogue in dialogues
        for index, turn in enumerate(dialogue.turns)
        if turn.labels
    }


def voted_lines(
    source: str, dialogues: Iterable[Dialogue], named: Mapping[Place, str]
) -> list[str]:
    """Return the dialogues that have a vote as JSON lines; pure."""
    lines = []
    for dialogue in dialogues:
        turns: list[dict[str, Any]] = []
        for index, turn in enumerate(dialogue.turns):
            label = named.get((source, dialogue.id, index))
            found = {"labels": [label]} if label else {}
            turns.append({"speaker": turn.speaker, "text": turn.text, **found})
        if any("labels" in turn for turn in turns):
            # ids are unique within a source only
            line = {"id": f"{source}/{dialogue.id}", "turns": turns}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines
