"""One row and seed to run: its spec, its labeled subset, its baseline, and how it is measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfemo_api.spec import Context, DataFormat, EvolutionSpec, Source, View
from selfemo_api.text.files import write_atomically
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.json_lines import to_json_lines
from selfemo_jobs.runtime.program import versions
from selfemo_jobs.stages.warmstart.options import TrainingOptions, share_of
from selfemo_study.base_models import prepare_base_model
from selfemo_study.data_volumes import DataVolumes, load_dialogues
from selfemo_study.label_separation import check_label_separation
from selfemo_study.made_models import make_once
from selfemo_study.measurements import (
    Measurement,
    Measurements,
    count_answers,
    write_counts,
    write_predictions,
)
from selfemo_study.model_evaluation import evaluate_model, evaluation_settings
from selfemo_study.row_evolution import BASES_VOLUME, evolution_of, row_settings
from selfemo_study.row_result import DEV, TEST, CurvePoint, Generation, RowResult
from selfemo_study.study_config import Row, Study, StudyError, base_row
from selfemo_study.study_folders import RowFolder, StudyFolders, exclusive_lock
from selfemo_study.supervised_training import SupervisedTraining, train
from selfemo_study.training_rounds import best_round, train_in_rounds


@dataclass(frozen=True)
class RowTask:
    """One row and seed to run."""

    study: Study
    row: Row
    seed: int
    folders: StudyFolders
    volumes: DataVolumes

    @property
    def folder(self) -> RowFolder:
        """The folder of the row and seed."""
        return self.folders.row(self.row, self.seed)

    @cached_property
    def base_spec(self) -> EvolutionSpec:
        """The evolution's spec without the changes of any row."""
        return self.spec_of(base_row())

    @cached_property
    def spec(self) -> EvolutionSpec:
        """The row's own spec. A control has no changes, so its spec is the base spec."""
        return self.spec_of(self.row)

    @cached_property
    def steps_row_spec(self) -> EvolutionSpec:
        """The spec of the evolution row whose number of steps this row uses."""
        return self.spec_of(self.study.row(self.study.steps_row(self.row)))

    def spec_of(self, row: Row) -> EvolutionSpec:
        """Return the spec of a row with this task's seed. Raises StudyError."""
        return evolution_of(self.study, row, self.seed).spec

    @cached_property
    def training_dialogues(self) -> list[Dialogue]:
        """All training dialogues, with their labels."""
        source = self.study.warm_start.source
        return load_dialogues(self.base_spec.dataset, source, self.volumes, read_labels=True)

    @cached_property
    def labeled_dialogues(self) -> int:
        """The number of training dialogues in the labeled subset, from the first.

        Raises StudyError where self-play reads other labels, or reads these dialogues as unlabeled.
        """
        warm_start = self.study.warm_start
        count = share_of(len(self.training_dialogues), warm_start.share)
        for spec in (self.base_spec, self.spec):
            check_label_separation(spec, warm_start.source, count)
        return count

    def check_labels(self) -> None:
        """Check which labels the row reads. Raises StudyError as `labeled_dialogues` does."""
        _ = self.labeled_dialogues

    def steps_row_result(self) -> RowResult:
        """Return the result of the evolution row whose number of steps this row uses.

        Raises StudyError where that row is not finished.
        """
        row = self.study.row(self.study.steps_row(self.row))
        result = self.folders.row(row, self.seed).read()
        if result is None:
            raise StudyError(
                f"row {self.row.name} uses the number of steps of {row.name}, seed {self.seed}, "
                f"which is not finished: run `--rows {row.name} --seeds {self.seed}` first"
            )
        return result

    def steps(self) -> int:
        """Return the number of optimizer steps of a control. Raises StudyError."""
        if self.row.steps is not None:
            return self.row.steps
        steps = self.steps_row_result().steps
        if not steps:
            raise StudyError(f"row {self.row.name}: its evolution row did not train a single step")
        return steps

    def base_model(self) -> Path:
        """Return the model before its warm start, created where it does not exist."""
        if self.study.base.model == "given":
            return self.volumes.path("data://model")
        return prepare_base_model(self.study.base, self.folders)

    @property
    def base_uri(self) -> str:
        """The URI of the model before its warm start, for a run with the study's data volumes."""
        if self.study.base.model == "given":
            return "data://model"
        return f"data://{BASES_VOLUME}/{self.study.base.folder}"

    def baseline_model(self) -> Path:
        """Return generation 0, the seed's warm-started model, trained where it does not exist."""
        output = (self.folders.models / f"seed-{self.seed}").absolute()
        with exclusive_lock(self.folders.models / f"seed-{self.seed}.lock"):
            if self.study.warm_start.rounds is None:
                self.train(self._warm_start(self.base_model(), output))
            else:
                self._warm_start_in_rounds(output, self.study.warm_start.rounds)
        return output

    def _warm_start(self, model: Path, output: Path) -> SupervisedTraining:
        """Return the training of a model on the labeled subset for the steps of the warm start."""
        warm_start = self.study.warm_start
        return self.supervised_training(
            model, output, self.labeled_dialogues, warm_start.steps,
            warm_start.learning_rate, responder_share=warm_start.responder_share,
        )  # fmt: skip

    def _warm_start_in_rounds(self, output: Path, most: int) -> None:
        """Train until dev stops rising, and copy the best round's model.

        Finished rounds are used again. Models of other settings are refused. The spec is the same
        for all rows, because they share the model.
        """
        spec, base = self.base_spec, self.base_model()
        dev = selection_source(spec)

        def train_round(model: Path, number: int) -> Path:
            trained = output.with_name(f"{output.name}-round-{number}")
            self.train(self._warm_start(model, trained))
            return trained

        def measure(model: Path) -> float:
            return evaluate_model(model, spec, dev, self.folders, self.volumes).f1

        def make(folder: Path) -> None:
            rounds = train_in_rounds(base, train_round, measure, most)
            figures = {str(one.number): one.dev for one in rounds}
            write_atomically(output.with_name(f"{output.name}-rounds.json"), json.dumps(figures))
            shutil.copytree(best_round(rounds).model, folder)

        made_from = {
            **self._warm_start(base, output).settings(spec),
            "rounds": most,
            "dev": evaluation_settings(spec, dev, self.folders, self.volumes),
        }
        make_once(output, made_from, make)

    def supervised_training(
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
    ) -> SupervisedTraining:
        """Return a supervised training on labeled dialogues; see :meth:`train`.

        Parameters
        ----------
        model
            The model to start from.
        output
            The folder of the trained model.
        dialogues
            The number of dialogues to use, from the first.
        steps
            The number of optimizer steps.
        learning_rate
            The peak learning rate.
        responder_share
            The share of examples that train the responder, from 0 to 1.
        batch_size
            Examples in each step. None: as in the warm start.
        source
            A JSON Lines file of dialogues. None: the training dialogues.
        """
        warm_start = self.study.warm_start
        output.parent.mkdir(parents=True, exist_ok=True)
        file, format = (source, DataFormat.JSONL) if source else self._training_file(output)
        return SupervisedTraining(
            model=model,
            output=output,
            source=file,
            format=format.value,
            dialogues=dialogues,
            options=TrainingOptions(
                steps=steps,
                batch_size=batch_size or warm_start.batch_size,
                learning_rate=learning_rate,
                responder_share=responder_share,
                freeze_embeddings=warm_start.freeze_embeddings,
                train_layers=warm_start.train_layers,
                views=warm_start.views or default_views(self.base_spec.dataset.context),
                precision=warm_start.precision,
            ),
            seed=self.seed,
        )

    def train(self, training: SupervisedTraining) -> float:
        """Train a model where it does not exist; return the seconds that the training took.

        Raises StudyError where the training fails, or the existing model has other settings.
        """
        log = training.output.with_name(f"{training.output.name}.log")
        return train(training, self.base_spec, log)

    def _training_file(self, output: Path) -> tuple[Path, DataFormat]:
        """Return the file of the training dialogues, and its format.

        The command that trains has no option for columns, a map of labels, or a format that follows
        from the file. The dialogues are then written as the product reads them.
        """
        source, dataset = self.study.warm_start.source, self.base_spec.dataset
        if source.format is not None and not dataset.columns and not dataset.label_map:
            return self.volumes.path(source.uri), source.format
        file = output.with_name(f"{output.name}.jsonl")
        write_atomically(file, to_json_lines(self.training_dialogues))
        return file, DataFormat.JSONL

    @property
    def dev_source(self) -> Source:
        """The source that selects."""
        return selection_source(self.spec)

    @property
    def test_source(self) -> Source:
        """The source that is read once, at the end."""
        return self.study.test[0]

    def measure_dev(self, model: Path) -> Measurement:
        """Measure a model on dev, which selects."""
        return self._measure(model, self.dev_source)

    def measure_test(self, model: Path) -> Measurement:
        """Measure a model on test. Call it only when everything has been selected."""
        return self._measure(model, self.test_source)

    def _measure(self, model: Path, source: Source) -> Measurement:
        return evaluate_model(model, self.spec, source, self.folders, self.volumes)

    def finish(
        self,
        generations: list[Generation],
        measurements: Measurements,
        *,
        best: int,
        phase: str = "Succeeded",
        message: str = "",
        curve: list[CurvePoint] | None = None,
    ) -> RowResult:
        """Write the answers, their counts and, last, the result; return the result.

        Parameters
        ----------
        generations
            The generations, without their F1.
        measurements
            The answers by generation and split.
        best
            The number of the generation that is used.
        phase
            How the row ended.
        message
            One line about the end.
        curve
            Dev F1 during the training. None: it was not measured.
        """
        result = RowResult(
            study=self.study.name,
            row=self.row.name,
            kind=self.row.kind.value,
            seed=self.seed,
            phase=phase,
            message=message,
            best=best,
            generations=[_with_f1(g, measurements) for g in generations],
            curve=curve or [],
            settings=row_settings(self.study, self.row, self.seed),
            versions=versions(),
        )
        write_predictions(self.folder.predictions, measurements)
        counts = count_answers(measurements, self.spec.dataset.labels)
        write_counts(self.folder.counts, counts)
        self.folder.write(result)
        return result


def selection_source(spec: EvolutionSpec) -> Source:
    """Return the evaluation source that selects. Pure."""
    return next(s for s in spec.dataset.evaluation if s.name == spec.selection_dataset)


def default_views(context: Context) -> list[View]:
    """Return the views of a supervised training whose study names none. Pure.

    Parameters
    ----------
    context
        The context of the evolution's prompts. Without later turns, the command's own default is
        the same, so that no view has to be named.
    """
    return [View(past=context.past, future=context.future)] if context.future else []


def _with_f1(generation: Generation, measurements: Measurements) -> Generation:
    dev, test = (measurements.get((generation.generation, split)) for split in (DEV, TEST))
    return generation.model_copy(
        update={"dev": dev.f1 if dev else None, "test": test.f1 if test else None}
    )
