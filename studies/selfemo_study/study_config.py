"""What a study is: its file, and what follows from it for each row. Pure but for the reading."""

from __future__ import annotations

import copy
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from selfemo_api.api_model import ApiModel, DnsLabel, Share, first_problem
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.strict_yaml import parse_yaml
from selfemo_api.schema.validation import assign, check
from selfemo_api.spec import Source, View

#: The data volume where the harness keeps generation 0 of each seed.
MODELS = "study-models"
#: Where one row's run stores its results, below the folder that it runs in.
STORE = "file://./store"
#: More generations than this would fall out of `status.history`, which the results are read from.
MOST_GENERATIONS = 9


class StudyError(Exception):
    """A study cannot go on; the message says what to do."""


class Kind(StrEnum):
    """What a row does."""

    EVOLUTION = "evolution"
    """The product's own `selfemo run`, without labels."""
    SUPERVISED = "supervised"
    """More supervised steps on the labeled share."""
    CEILING = "ceiling"
    """Supervised steps from the base model on all training dialogues."""
    MAJORITY = "majority"
    """Self-training on generation 0's own majority votes."""
    ON_POLICY = "on-policy"
    """TRL's own GRPOTrainer, which generates as it trains."""
    TFIDF = "tfidf"
    """Words and characters, and a logistic regression."""
    CONSTANT = "constant"
    """Always the same label."""


class Labeled(StrEnum):
    """Which labels a control may read."""

    SHARE = "share"
    ALL = "all"


class Base(ApiModel):
    """The model before its warm start."""

    model: Annotated[str, Field(pattern="^(smollm2|tiny)$")]
    layers: Annotated[int, Field(ge=1, le=30)] = 8
    """Of SmolLM2: only the first so many."""

    @property
    def folder(self) -> str:
        """Name of the model's folder."""
        return "tiny" if self.model == "tiny" else f"{self.model}-{self.layers}l"


class WarmStart(ApiModel):
    """The supervised start on a labeled share: generation 0.

    Context, prompts and prompt length are the evolution's own.
    """

    source: Source
    """The training dialogues; `maxDialogues` where the file's end is used for something else."""
    share: Annotated[float, Field(gt=0.0, le=1.0)]
    """Of its dialogues, from the first."""
    steps: Annotated[int, Field(ge=1)] = 120
    batch_size: Annotated[int, Field(ge=1)] = 24
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    responder_share: Share = 0.25
    freeze_embeddings: bool = True
    views: list[View] = []
    """Views that the recognizer is taught, in the supervised controls too. Unset: the evolution's
    context alone."""
    train_layers: Annotated[int, Field(ge=1)] | None = None
    """Train only the last so many layers, in the supervised controls too. Unset: all."""


class Row(ApiModel):
    """One line of the study's table."""

    name: Annotated[DnsLabel, Field(max_length=20)]
    kind: Kind
    why: Annotated[str, Field(min_length=1, max_length=200)]
    """What it is there to show."""
    set: dict[str, Any] = {}
    """Paths below the evolution's spec and their values, as `selfemo run --set` takes them."""
    like: str | None = None
    """Controls: take the number of steps from this evolution row (unset: the headline row)."""
    after: str | None = None
    """Evolutions: generation 0 is what this supervised row has trained. Unset: the warm start."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Controls: this many steps instead."""
    learning_rates: list[Annotated[float, Field(gt=0.0)]] = []
    """Supervised controls: each is trained, dev chooses."""
    labeled: Labeled = Labeled.SHARE
    """TF-IDF: which labels it may read."""
    label: str | None = None
    """Constant: the answer."""
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """Only these of the study's. Unset: all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        trained = self.kind in (Kind.SUPERVISED, Kind.CEILING, Kind.MAJORITY)
        if trained and not self.learning_rates:
            raise ValueError(f"row {self.name}: give `learningRates`, from which dev chooses")
        if self.kind is Kind.CEILING and self.steps is None:
            raise ValueError(f"row {self.name}: give `steps`: all labels want more than the share")
        if self.kind is Kind.CONSTANT and self.label is None:
            raise ValueError(f"row {self.name}: give `label`, the answer")
        if self.set and self.kind not in (Kind.EVOLUTION, Kind.ON_POLICY):
            raise ValueError(f"row {self.name}: `set` changes evolutions only")
        if self.after is not None and self.kind is not Kind.EVOLUTION:
            raise ValueError(f"row {self.name}: only an evolution comes `after` a row")
        return self


class Study(ApiModel):
    """A study's file."""

    name: Annotated[DnsLabel, Field(max_length=12)]
    title: str
    notes: list[str] = []
    """What a reader of the page has to know about the data."""
    data: dict[str, str]
    """Folder by data volume; relative ones start where the command runs. `--data` replaces them."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    headline: str
    """The row whose gain is the study's answer."""
    base: Base
    warm_start: WarmStart
    test: Annotated[list[Source], Field(min_length=1, max_length=1)]
    """Read once, when a row is at its end. `spec.dataset.evaluation` is dev, which chooses."""
    spec: dict[str, Any]
    """The evolution's spec; `model.uri`, `storage` and `seed` are the harness's to fill in."""
    rows: Annotated[list[Row], Field(min_length=1)]
    keep_models: bool = False
    """Keep every generation's model of a finished row, not the best alone."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rows must have names of their own: {', '.join(twice)}")
        kinds = {row.name: row.kind for row in self.rows}
        for row, of in ((r.name, self.model_of(r)) for r in self.rows):
            if kinds.get(of) is not Kind.EVOLUTION:
                raise ValueError(f"row {row} is like `{of}`, which is no evolution row")
        for one in self.rows:
            if one.after is not None and kinds.get(one.after) is not Kind.SUPERVISED:
                raise ValueError(f"row {one.name} is after `{one.after}`, no supervised row")
            if unknown := sorted({*(one.seeds or [])} - {*self.seeds}):
                raise ValueError(f"row {one.name}: `seeds` {unknown} are not among the study's")
        return self

    def seeds_of(self, row: Row) -> list[int]:
        """Return the seeds that a row is run with."""
        return self.seeds if row.seeds is None else row.seeds

    def row(self, name: str) -> Row:
        """Return a row. Raises StudyError."""
        for row in self.rows:
            if row.name == name:
                return row
        known = ", ".join(row.name for row in self.rows)
        raise StudyError(f"{self.name} has no row `{name}`: it has {known}")

    def model_of(self, row: Row) -> str:
        """Return the evolution row that a row takes its number of steps from."""
        if row.kind is Kind.EVOLUTION:
            return row.name
        return row.like or self.headline


def load_study(path: Path) -> Study:
    """Return a study. Raises StudyError."""
    try:
        document, _ = parse_yaml(path.read_text(encoding="utf-8"))
        return Study.model_validate(document)
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        field, message = first_problem(error)
        raise StudyError(f"{path}: {field or 'the file'}: {message}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"{path} is not YAML: {error}") from None


def needed(study: Study, names: list[str]) -> list[Row]:
    """Return the rows with those that they rely on, each after what it needs."""
    found: list[Row] = []
    for name in names:
        row = study.row(name)
        takes_steps = row.kind in (Kind.SUPERVISED, Kind.MAJORITY, Kind.ON_POLICY)
        first = [study.row(study.model_of(row))] if takes_steps and needs_model(row) else []
        if row.after is not None:
            first = needed(study, [row.after])
        found += [r for r in (*first, row) if r not in found]
    return found


def needs_model(row: Row) -> bool:
    """Return whether a row needs the result of the evolution row that it is like."""
    return row.kind is Kind.MAJORITY or row.steps is None


def document_of(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """Return the EmotionEvolution of a row, with its changes made. Raises StudyError."""
    spec: dict[str, Any] = copy.deepcopy(study.spec)
    for path, value in row.set.items():
        problem = assign(spec, path, value)
        if problem is not None:
            raise StudyError(f"row {row.name}: {problem}")
    model = {**spec.get("model", {}), "uri": f"data://{MODELS}/{start_of(row, seed)}"}
    return {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        # one name for all: what rows have in common then has the same place below each one's folder
        "metadata": {"name": f"{study.name}-{study.headline}"},
        "spec": {**spec, "seed": seed, "model": model, "storage": {"uri": STORE}},
    }


def start_of(row: Row, seed: int) -> str:
    """Return the folder of the model that a row begins with, among those that rows share."""
    return f"seed-{seed}" if row.after is None else f"{row.after}-seed-{seed}"


def problems(study: Study, row: Row) -> list[str]:
    """Return what is wrong with a row's evolution; empty where the API server would take it."""
    found = check(document_of(study, row, study.seeds[0]))
    words = [f"row {row.name}: {problem}" for problem in found]
    if not words:
        spec = evolution_of(study, row, study.seeds[0]).spec
        if spec.evolution.max_generations > MOST_GENERATIONS:
            words.append(
                f"row {row.name}: spec.evolution.maxGenerations: {MOST_GENERATIONS} is the most: "
                "older generations leave the history"
            )
    return words


def evolution_of(study: Study, row: Row, seed: int) -> EmotionEvolution:
    """Return a row's evolution. Raises StudyError where the API server would refuse it."""
    document = document_of(study, row, seed)
    found = check(document)
    if found:
        raise StudyError("; ".join(f"row {row.name}: {problem}" for problem in found))
    return EmotionEvolution.model_validate(document)


def base_row() -> Row:
    """Return a row without changes: what all rows share."""
    return Row(name="base", kind=Kind.EVOLUTION, why="what all rows share")
