"""What every kind of row needs: its spec, its labeled share, generation 0, and the measuring."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfemo_api.spec import EvolutionSpec, Source
from selfemo_jobs.base_models.warm_start import share_of
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.runtime.program import versions
from selfemo_study.paths import Places, RowFolder, alone, asked_for
from selfemo_study.programs import Data, Supervised, dialogues_of, selfemo, train_supervised
from selfemo_study.row_record import (
    DEV,
    TEST,
    Answers,
    CurvePoint,
    Generation,
    Measured,
    RowResult,
    counted,
    write_counts,
    write_predictions,
)
from selfemo_study.study_config import Base, Row, Study, StudyError, base_row, evolution_of
from selfemo_study.test_scores import measure


@dataclass(frozen=True)
class Work:
    """One row and seed to be done."""

    study: Study
    row: Row
    seed: int
    places: Places
    data: Data

    @property
    def folder(self) -> RowFolder:
        """Where it is done."""
        return self.places.row(self.row, self.seed)

    @cached_property
    def base_spec(self) -> EvolutionSpec:
        """The evolution's spec without a row's changes."""
        return self.spec_of(base_row())

    @cached_property
    def spec(self) -> EvolutionSpec:
        """The row's own spec: of a control, what all rows share."""
        return self.spec_of(self.row)

    def spec_of(self, row: Row) -> EvolutionSpec:
        """Return a row's spec, of this seed."""
        return evolution_of(self.study, row, self.seed).spec

    @cached_property
    def training(self) -> list[Dialogue]:
        """All training dialogues, with their labels."""
        source = self.study.warm_start.source
        labels = self.base_spec.dataset.labels
        found: list[Dialogue] = dialogues_of(source, labels, self.data, read_labels=True)
        return found

    @cached_property
    def share(self) -> int:
        """How many of them are labeled: the first so many. Raises StudyError."""
        count = share_of(len(self.training), self.study.warm_start.share)
        check_apart(self.base_spec, self.study.warm_start.source, count)
        return count

    def like(self) -> RowResult:
        """Return what the row's model came to. Raises StudyError where it is not finished."""
        model = self.study.row(self.study.model_of(self.row))
        found = self.places.row(model, self.seed).read()
        if found is None:
            raise StudyError(
                f"row {self.row.name} takes its steps from {model.name}, seed {self.seed}, which "
                f"is not finished: run `--rows {model.name} --seeds {self.seed}` first"
            )
        return found

    @cached_property
    def like_spec(self) -> EvolutionSpec:
        """The spec of the evolution row that this one is like."""
        return self.spec_of(self.study.row(self.study.model_of(self.row)))

    def steps(self) -> int:
        """Return the number of optimizer steps of a control. Raises StudyError."""
        if self.row.steps is not None:
            return self.row.steps
        found = self.like().steps
        if not found:
            raise StudyError(f"row {self.row.name}: its model did not train a single step")
        return found

    def base_model(self) -> Path:
        """Return the model before its warm start, made where it is not there."""
        return base_model(self.study.base, self.places)

    def generation_zero(self) -> Path:
        """Return the seed's warm-started model, made where it is not there."""
        output = (self.places.models / f"seed-{self.seed}").absolute()
        start = self.study.warm_start
        with alone(self.places.models / f"seed-{self.seed}.lock"):
            self.supervised(
                self.base_model(), output, self.share, start.steps, start.learning_rate,
                responder_share=start.responder_share,
            )  # fmt: skip
        return output

    def supervised(
        self,
        model: Path,
        output: Path,
        dialogues: int,
        steps: int,
        learning_rate: float,
        *,
        responder_share: float,
        batch_size: int | None = None,
        source: Path | None = None,
    ) -> float:
        """Train on labeled dialogues and return the seconds. Raises StudyError.

        Parameters
        ----------
        dialogues
            The first so many of the source's.
        source
            A JSON-lines file. Unset: the training dialogues.
        """
        start = self.study.warm_start
        output.parent.mkdir(parents=True, exist_ok=True)
        wanted = Supervised(
            model=model,
            output=output,
            source=source or self.data.path(start.source.uri),
            format="JSONL" if source else start.source.format.value,
            dialogues=dialogues,
            steps=steps,
            batch_size=batch_size or start.batch_size,
            learning_rate=learning_rate,
            responder_share=responder_share,
            freeze_embeddings=start.freeze_embeddings,
            train_layers=start.train_layers,
            views=tuple(f"{view.past},{view.future}" for view in start.views),
            seed=self.seed,
        )
        return train_supervised(wanted, self.base_spec, output.with_name(f"{output.name}.log"))

    def dev(self, model: Path) -> Measured:
        """Measure a model on dev, which chooses."""
        return self._measure(model, self.dev_source)

    def test(self, model: Path) -> Measured:
        """Measure a model on test: only once all is chosen."""
        return self._measure(model, self.test_source)

    @property
    def dev_source(self) -> Source:
        """The source that chooses."""
        name = self.spec.selection_dataset
        return next(s for s in self.spec.dataset.evaluation if s.name == name)

    @property
    def test_source(self) -> Source:
        """The source that is read once."""
        return self.study.test[0]

    def _measure(self, model: Path, source: Source) -> Measured:
        return measure(model, self.spec, source, self.places, self.data)

    def finish(
        self,
        generations: list[Generation],
        answers: Answers,
        *,
        best: int,
        phase: str = "Succeeded",
        message: str = "",
        curve: list[CurvePoint] | None = None,
    ) -> RowResult:
        """Write the answers, their counts and then the result."""
        result = RowResult(
            study=self.study.name,
            row=self.row.name,
            kind=self.row.kind.value,
            seed=self.seed,
            phase=phase,
            message=message,
            best=best,
            generations=[_with_f1(g, answers) for g in generations],
            curve=curve or [],
            asked=asked_for(self.study, self.row, self.seed),
            versions=versions(),
        )
        write_predictions(self.folder.predictions, answers)
        write_counts(self.folder.counts, counted(answers, self.spec.dataset.labels))
        self.folder.write(result)
        return result


def base_model(base: Base, places: Places) -> Path:
    """Return the model before its warm start, made where it is not there. Raises StudyError."""
    output = (places.bases / base.folder).absolute()
    log = places.bases / f"{base.folder}.log"
    with alone(places.bases / f"{base.folder}.lock"):
        if (output / "config.json").is_file():
            return output
        made = output.with_name(output.name + ".making")
        options = ["--output", str(made)]
        if base.model == "tiny":
            arguments = ["model", "tiny", *options]
        else:
            arguments = ["model", "prepare", base.model, "--layers", str(base.layers), *options]
        code, _ = selfemo(arguments, log=log)
        if code:
            raise StudyError(f"the base model could not be made (exit code {code}); see {log}")
        made.rename(output)
    return output


def check_apart(spec: EvolutionSpec, labeled: Source, count: int) -> None:
    """Refuse self-play that reads other labels than the warm start's, or meets those unlabeled.

    A source that may read labels (`useLabels`) must lie within the labeled share; every other one
    must keep away from it. Raises StudyError.
    """
    first = labeled.first_dialogue
    end = first + count
    for source in spec.dataset.self_play:
        last = source.first_dialogue + (source.max_dialogues or 10**9)
        same = source.uri == labeled.uri
        if source.use_labels:
            if not same or source.first_dialogue < first or last > end:
                raise StudyError(
                    f"self-play source `{source.name}` reads labels that the warm start has not: "
                    f"let it begin at dialogue {first} or later and end within the first {end} of "
                    f"{labeled.uri}"
                )
        elif same and source.first_dialogue < end and last > first:
            raise StudyError(
                f"self-play source `{source.name}` begins at dialogue {source.first_dialogue}, but "
                f"the labels of the first {end} are read by the warm start: set its "
                f"`firstDialogue` to {end}, or `useLabels`"
            )


def _with_f1(generation: Generation, answers: Answers) -> Generation:
    dev, test = (answers.get((generation.generation, split)) for split in (DEV, TEST))
    return generation.model_copy(
        update={"dev": dev.f1 if dev else None, "test": test.f1 if test else None}
    )
