"""One row and seed to run: its spec, its labeled share, its baseline, and how it is measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfemo_api.spec import EvolutionSpec, Source
from selfemo_api.text.files import write_atomically
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.runtime.program import versions
from selfemo_jobs.stages.warmstart.options import TrainingOptions, share_of
from selfemo_study.data_volumes import DataVolumes, load_dialogues
from selfemo_study.measurements import (
    Measurement,
    Measurements,
    count_answers,
    write_counts,
    write_predictions,
)
from selfemo_study.model_evaluation import evaluate_model
from selfemo_study.row_evolution import BASES_VOLUME, evolution_of, row_settings
from selfemo_study.row_result import DEV, TEST, CurvePoint, Generation, RowResult
from selfemo_study.study_config import BaseModelConfig, Row, Study, StudyError, base_row
from selfemo_study.study_folders import RowFolder, StudyFolders, exclusive_lock
from selfemo_study.subprocesses import run_selfemo
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
        labels = self.base_spec.dataset.labels
        return load_dialogues(source, labels, self.volumes, read_labels=True)

    @cached_property
    def labeled_dialogues(self) -> int:
        """The number of training dialogues in the labeled share, from the first.

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
                self._warm_start(self.base_model(), output)
            else:
                self._warm_start_in_rounds(output, self.study.warm_start.rounds)
        return output

    def _warm_start(self, model: Path, output: Path) -> None:
        """Train a model on the labeled share for the steps of the warm start."""
        warm_start = self.study.warm_start
        self.train_supervised(
            model, output, self.labeled_dialogues, warm_start.steps,
            warm_start.learning_rate, responder_share=warm_start.responder_share,
        )  # fmt: skip

    def _warm_start_in_rounds(self, output: Path, most: int) -> None:
        """Train until dev stops rising, and copy the best round's model.

        Finished rounds are used again. Rounds of other settings are refused.
        """

        def train_round(model: Path, number: int) -> Path:
            trained = output.with_name(f"{output.name}-round-{number}")
            self._warm_start(model, trained)
            return trained

        rounds = train_in_rounds(
            self.base_model(), train_round, lambda model: self.measure_dev(model).f1, most
        )
        if output.is_dir():
            return
        figures = {str(one.number): one.dev for one in rounds}
        write_atomically(output.with_name(f"{output.name}-rounds.json"), json.dumps(figures))
        incomplete = output.with_name(f"{output.name}.making")
        shutil.rmtree(incomplete, ignore_errors=True)
        shutil.copytree(best_round(rounds).model, incomplete)
        incomplete.rename(output)

    def train_supervised(
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
        """Train a model on labeled dialogues; return the seconds that the training took.

        Parameters
        ----------
        model
            The model to start from.
        output
            The folder of the trained model. A model that is already there is used.
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

        Raises
        ------
        StudyError
            If the training fails, or the existing model was trained with other settings.
        """
        warm_start = self.study.warm_start
        format = warm_start.source.format
        output.parent.mkdir(parents=True, exist_ok=True)
        training = SupervisedTraining(
            model=model,
            output=output,
            source=source or self.volumes.path(warm_start.source.uri),
            format="JSONL" if source or format is None else format.value,
            dialogues=dialogues,
            options=TrainingOptions(
                steps=steps,
                batch_size=batch_size or warm_start.batch_size,
                learning_rate=learning_rate,
                responder_share=responder_share,
                freeze_embeddings=warm_start.freeze_embeddings,
                train_layers=warm_start.train_layers,
                views=warm_start.views,
                precision=warm_start.precision,
            ),
            seed=self.seed,
        )
        return train(training, self.base_spec, output.with_name(f"{output.name}.log"))

    @property
    def dev_source(self) -> Source:
        """The source that selects."""
        name = self.spec.selection_dataset
        return next(s for s in self.spec.dataset.evaluation if s.name == name)

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


def prepare_base_model(base: BaseModelConfig, folders: StudyFolders) -> Path:
    """Return the model before its warm start, created where it does not exist.

    Parameters
    ----------
    base
        Which model it is.
    folders
        The study's folders.

    Raises
    ------
    StudyError
        If the command that creates the model fails.
    """
    output = (folders.base_models / base.folder).absolute()
    log = folders.base_models / f"{base.folder}.log"
    with exclusive_lock(folders.base_models / f"{base.folder}.lock"):
        if (output / "config.json").is_file():
            return output
        incomplete = output.with_name(output.name + ".making")
        options = ["--to", str(incomplete)]
        if base.model == "tiny":
            arguments = ["model", "tiny", *options]
        else:
            arguments = ["model", "prepare", base.model, "--layers", str(base.layers), *options]
        code, _ = run_selfemo(arguments, log=log)
        if code:
            raise StudyError(f"the base model could not be created (exit code {code}); see {log}")
        incomplete.rename(output)
    return output


def check_label_separation(spec: EvolutionSpec, labeled: Source, count: int) -> None:
    """Check that self-play reads the labels of the labeled share, and no others.

    A source with `use: Labeled` must lie within the labeled share. Every other source must not
    contain a dialogue of it.

    Parameters
    ----------
    spec
        The evolution's spec.
    labeled
        The source of the warm start.
    count
        The number of its dialogues in the labeled share, from the first.

    Raises
    ------
    StudyError
        If a self-play source breaks one of the two rules.
    """
    first = labeled.offset
    end = first + count
    for source in spec.dataset.self_play:
        source_end = source.offset + (source.limit or 10**9)
        same_file = source.uri == labeled.uri
        if source.use_labels:
            if not same_file or source.offset < first or source_end > end:
                raise StudyError(
                    f"self-play source `{source.name}` reads labels that the warm start does not "
                    f"read: it must begin at dialogue {first} or later and end within the first "
                    f"{end} dialogues of {labeled.uri}"
                )
        elif same_file and source.offset < end and source_end > first:
            raise StudyError(
                f"self-play source `{source.name}` begins at dialogue {source.offset}, but "
                f"the warm start reads the labels of the first {end}: set its `offset` to "
                f"{end}, or set `use: Labeled`"
            )


def _with_f1(generation: Generation, measurements: Measurements) -> Generation:
    dev, test = (measurements.get((generation.generation, split)) for split in (DEV, TEST))
    return generation.model_copy(
        update={"dev": dev.f1 if dev else None, "test": test.f1 if test else None}
    )
