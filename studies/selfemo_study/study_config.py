"""The types of a study's YAML file, and the order of its rows. Pure but for the reading."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from selfemo_api.api_model import ApiModel, DnsLabel, first_problem
from selfemo_api.schema.strict_yaml import PARSE_ERRORS, parse_yaml
from selfemo_api.spec import Source
from selfemo_jobs.stages.warmstart.options import TrainingOptions


class StudyError(Exception):
    """The study cannot continue; the message says what to do."""


class Kind(StrEnum):
    """The kinds of rows."""

    EVOLUTION = "evolution"
    """The product's own `selfemo run`, without labels."""
    SUPERVISED = "supervised"
    """More supervised steps on the labeled subset."""
    CEILING = "ceiling"
    """Supervised steps from the base model on all training dialogues."""
    MAJORITY = "majority"
    """Self-training on generation 0's own majority votes."""
    ON_POLICY = "on-policy"
    """TRL's own GRPOTrainer, which generates while it trains."""
    ADAMATCH = "adamatch"
    """Semi-supervised training without roles, like AdaMatch."""
    TFIDF = "tfidf"
    """TF-IDF of words and characters, and a logistic regression."""
    CONSTANT = "constant"
    """Always the same label."""


class Labeled(StrEnum):
    """Which labels a control may read."""

    SHARE = "share"
    """The labels of the labeled subset."""
    ALL = "all"
    """The labels of all training dialogues."""


class BaseModelConfig(ApiModel):
    """The model before its warm start."""

    model: Annotated[str, Field(pattern="^(smollm2|tiny|given)$")]
    """`smollm2` and `tiny` are created. `given` is the model in the data volume `model`."""
    layers: Annotated[int, Field(ge=1, le=30)] = 8
    """The number of layers that are kept of SmolLM2, from the first."""

    @property
    def folder(self) -> str:
        """The name of the model's folder."""
        return f"{self.model}-{self.layers}l" if self.model == "smollm2" else self.model


class WarmStart(TrainingOptions):
    """The supervised training on the labeled subset, which makes generation 0.

    Context, prompts and prompt length are those of the evolution. `views` and `trainLayers` hold
    for the supervised controls too.
    """

    source: Source
    """The training dialogues. Set `limit` where the end of the file is used for something
    else."""
    share: Annotated[float, Field(gt=0.0, le=1.0)]
    """The share of its dialogues that is labeled, from the first."""
    rounds: Annotated[int, Field(ge=1)] | None = None
    """Train for `steps` steps again and again until dev stops rising, at most so many times; see
    :mod:`selfemo_study.training_rounds`. The best round is generation 0. Unset: train once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source.offset:
            raise ValueError(
                "`source.offset` must be 0: the training counts the labeled subset from the first "
                "dialogue of the file"
            )
        return self


class Row(ApiModel):
    """One line of the study's table."""

    name: Annotated[DnsLabel, Field(max_length=20)]
    kind: Kind
    why: Annotated[str, Field(min_length=1, max_length=200)]
    """What the row is meant to show."""
    set: dict[str, Any] = {}
    """Paths below the evolution's spec and their values, as for `selfemo run --set`."""
    like: str | None = None
    """Controls: train as many steps as this evolution row. Unset: as the headline row."""
    after: str | None = None
    """Evolutions: generation 0 is the model that this supervised row trained. Supervised controls:
    train the best model of this evolution row further. Unset: the warm start."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Controls: train this many steps, whatever the evolution row did."""
    learning_rates: list[Annotated[float, Field(gt=0.0)]] = []
    """Supervised controls: each learning rate is trained, and dev selects one."""
    labeled: Labeled = Labeled.SHARE
    """TF-IDF: which labels it may read."""
    label: str | None = None
    """Constant: the label that it always answers."""
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """Run only these of the study's seeds. Unset: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        trained = self.kind in (Kind.SUPERVISED, Kind.CEILING, Kind.MAJORITY)
        if trained and not self.learning_rates:
            raise ValueError(
                f"row {self.name}: `learningRates` is missing: name the rates from which dev "
                "selects one"
            )
        if self.kind is Kind.CEILING and self.steps is None:
            raise ValueError(
                f"row {self.name}: `steps` is missing: all labels need more steps than the share"
            )
        if self.kind is Kind.CONSTANT and self.label is None:
            raise ValueError(f"row {self.name}: `label` is missing: name the constant answer")
        if self.set and self.kind not in (Kind.EVOLUTION, Kind.ON_POLICY, Kind.ADAMATCH):
            raise ValueError(
                f"row {self.name}: `set` is for evolution, on-policy and adamatch rows only"
            )
        if self.after is not None and self.kind not in (Kind.EVOLUTION, Kind.SUPERVISED):
            raise ValueError(f"row {self.name}: `after` is for evolution and supervised rows only")
        return self


class Study(ApiModel):
    """A study's YAML file."""

    name: Annotated[DnsLabel, Field(max_length=12)]
    title: str
    notes: list[str] = []
    """What a reader of the page must know about the data."""
    data: dict[str, str]
    """Folder by data volume. A relative folder is below the working directory of the command.
    `--data` replaces entries."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    headline: str
    """The row whose gain is the study's answer."""
    without_responder: str | None = None
    """The row that is the headline row without the responder. Its gain stands beside the
    answer."""
    base: BaseModelConfig
    warm_start: WarmStart
    test: Annotated[list[Source], Field(min_length=1, max_length=1)]
    """The test source, read once at the end of a row. `spec.dataset.evaluation` is dev, which
    selects."""
    spec: dict[str, Any]
    """The evolution's spec. The harness adds `model.uri`, `storage` and `seed`."""
    rows: Annotated[list[Row], Field(min_length=1)]
    keep_models: bool = False
    """Keep every generation's model of a finished row. Off: only the best is kept."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [row.name for row in self.rows]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`rows`: names must not repeat: {', '.join(repeated)}")
        kinds = {row.name: row.kind for row in self.rows}
        for row in self.rows:
            if kinds.get(self.steps_row(row)) is not Kind.EVOLUTION:
                raise ValueError(
                    f"row {row.name}: `like` is `{self.steps_row(row)}`, which is not the name of "
                    "an evolution row"
                )
            needed = Kind.SUPERVISED if row.kind is Kind.EVOLUTION else Kind.EVOLUTION
            if row.after is not None and kinds.get(row.after) is not needed:
                article = "an" if needed is Kind.EVOLUTION else "a"
                raise ValueError(
                    f"row {row.name}: `after` is `{row.after}`, which is not the name of {article} "
                    f"{needed.value} row"
                )
            before = next((r for r in self.rows if r.name == row.after), None)
            if row.kind is Kind.SUPERVISED and before is not None and before.after is not None:
                raise ValueError(
                    f"row {row.name}: `after` is `{row.after}`, which begins `after` another row "
                    "itself: name an evolution row that begins with the warm start"
                )
            if unknown := sorted({*(row.seeds or [])} - {*self.seeds}):
                raise ValueError(
                    f"row {row.name}: `seeds` {unknown} are not among the study's {self.seeds}"
                )
        if self.without_responder not in (None, *kinds):
            raise ValueError(f"`withoutResponder`: there is no row `{self.without_responder}`")
        return self

    def seeds_of(self, row: Row) -> list[int]:
        """Return the seeds that a row is run with."""
        return self.seeds if row.seeds is None else row.seeds

    def row(self, name: str) -> Row:
        """Return the row with a name. Raises StudyError."""
        for row in self.rows:
            if row.name == name:
                return row
        known = ", ".join(row.name for row in self.rows)
        raise StudyError(f"study {self.name} has no row `{name}`: its rows are {known}")

    def steps_row(self, row: Row) -> str:
        """Return the name of the evolution row whose number of steps a control uses."""
        if row.kind is Kind.EVOLUTION:
            return row.name
        return row.like or self.headline


def load_study(path: Path) -> Study:
    """Return the study of a YAML file. Raises StudyError."""
    try:
        document, _ = parse_yaml(path.read_text(encoding="utf-8"))
        return Study.model_validate(document)
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        field, message = first_problem(error)
        raise StudyError(f"{path}: {field or 'the file'}: {message}") from None
    except PARSE_ERRORS as error:
        reason = str(error) or "it is nested too deeply"
        raise StudyError(f"{path} is not YAML: {reason}") from None


def with_required_rows(study: Study, names: list[str]) -> list[Row]:
    """Return the named rows and the rows that they require, each after those that it requires.

    Parameters
    ----------
    study
        The study.
    names
        The names of the rows to run.

    Raises
    ------
    StudyError
        If the study has no row of that name.
    """
    rows: list[Row] = []
    for name in names:
        row = study.row(name)
        required = [study.row(study.steps_row(row))] if uses_steps_row(row) else []
        if row.after is not None:
            required = [*required, *with_required_rows(study, [row.after])]
        rows += [r for r in (*required, row) if r not in rows]
    return rows


def uses_steps_row(row: Row) -> bool:
    """Return whether a row is a control that requires the result of its evolution row."""
    trained = row.kind in (Kind.SUPERVISED, Kind.MAJORITY, Kind.ON_POLICY, Kind.ADAMATCH)
    return trained and (row.kind is Kind.MAJORITY or row.steps is None)


def base_row() -> Row:
    """Return a row without changes: its spec is what all rows share."""
    return Row(name="base", kind=Kind.EVOLUTION, why="what all rows share")
