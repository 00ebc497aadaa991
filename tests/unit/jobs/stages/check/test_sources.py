"""The sources: the label prior, the fields of sources that no one has written, and warnings."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_api.recipes import resolve
from selfemo_api.spec import EvolutionSpec, Source, Use
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.stages.check.sources import ReadSource, label_prior, source_fields


def labeled(use: Use, *labels: tuple[str, ...]) -> ReadSource:
    source = Source(name="one", uri="file:///one.jsonl", use=use)
    turns = tuple(Utterance("Ann", "Well.", each) for each in labels)
    return ReadSource(source, "dataset.sources[0]", [Dialogue("d", turns)], ())


def test_the_label_prior_has_the_shares_of_the_labeled_sources() -> None:
    sources = [
        labeled(Use.LABELED, ("joy",), ("anger",), (), ("joy",)),
        labeled(Use.LABELED, ("joy",)),
        labeled(Use.EVALUATION, ("joy",), ("joy",)),
    ]
    assert label_prior(["joy", "anger"], sources) == {"joy": 0.75, "anger": 0.25}


def test_a_label_that_the_labeled_sources_lack_has_the_share_of_one() -> None:
    sources = [
        labeled(Use.LABELED, ("joy",), ("anger",), (), ("joy",)),
        labeled(Use.EVALUATION, ("fear",), ("fear",)),
    ]
    shares = label_prior(["joy", "fear", "anger"], sources)
    assert shares == {"joy": 0.5, "fear": 0.25, "anger": 0.25}


def test_with_several_labels_of_a_turn_the_shares_are_those_of_the_mentions() -> None:
    sources = [labeled(Use.LABELED, ("joy", "fear"), ("joy",), ("anger", "joy"))]
    shares = label_prior(["joy", "fear", "anger"], sources)
    assert shares == {"joy": 0.6, "fear": 0.2, "anger": 0.2}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_without_labels_there_is_no_label_prior() -> None:
    assert label_prior(["joy"], [labeled(Use.LABELED, (), ())]) is None
    assert label_prior(["joy"], [labeled(Use.EVALUATION, ("joy",))]) is None


def spec_of(dataset: dict[str, object]) -> EvolutionSpec:
    return EvolutionSpec.model_validate(
        resolve(
            {
                "recipe": "tests-v1",
                "model": {"uri": "file:///model"},
                "storage": {"uri": "file:///storage"},
                "dataset": dataset,
            }
        )
    )


def test_the_parts_of_a_divided_source_have_its_field() -> None:
    train = {"name": "train", "uri": "data://m/a.jsonl", "use": "SelfPlay"}
    dev = {"name": "dev", "uri": "data://m/b.jsonl", "use": "Evaluation"}
    spec = spec_of(
        {
            "labels": ["joy", "fear"],
            "labeledDialogues": 3,
            "sources": [dev, train, dev | {"name": "d2"}],
        }
    )
    assert [source.name for source in spec.dataset.sources] == [
        "dev",
        "train",
        "train-labeled",
        "d2",
    ]
    assert source_fields(spec) == [
        *("dataset.sources[0]", "dataset.sources[1]", "dataset.sources[1]", "dataset.sources[2]")
    ]


def test_the_sources_of_a_preset_have_the_field_of_its_folder(world: World) -> None:
    del world.spec["dataset"]
    world.spec["dataset"] = {"preset": "MELD", "uri": f"file://{world.folder}/meld"}
    assert source_fields(world.config().spec) == ["dataset.uri"] * 4
    lines = world.problems()
    assert lines == [
        f"dataset.uri: file://{world.folder}/meld/{name}_sent_emo.csv: "
        f"{world.folder}/meld/{name}_sent_emo.csv does not exist"
        for name in ("train", "dev", "test")
    ]


def test_dialogues_of_an_evaluation_source_in_self_play_give_a_warning(world: World) -> None:
    world.write_dialogues("dev", 4, 3)
    output, findings = world.check()
    assert findings.problems == []
    (warning,) = map(str, findings.warnings)
    assert warning.startswith("dataset.sources[1]: ")
    assert "2 dialogues" in warning
    assert output.report["warnings"] == [warning]


def test_sources_that_share_a_field_are_named(world: World) -> None:
    """The first two dialogues are the labeled part of the first source."""
    world.spec["dataset"]["labels"].append("surprise")
    assert [str(finding) for finding in world.check()[1].warnings] == [
        "dataset.sources[0]: source `train-labeled`: no turn has the label `surprise`",
        "dataset.sources[1]: no turn has the label `surprise`",
        "dataset.sources[2]: no turn has the label `surprise`",
    ]


def test_unlabeled_self_play_needs_no_labels(world: World) -> None:
    def unlabel(turn: dict[str, object]) -> None:
        turn["labels"] = ["of no set"]

    world.spec["dataset"]["labeledDialogues"] = 0
    world.write_dialogues("train", 0, 6, unlabel)
    output, findings = world.check()
    assert findings.problems == []
    assert output.label_prior is None


def test_several_kinds_of_data_are_read(world: World, tmp_path: Path) -> None:
    (tmp_path / "talk.csv").write_text(
        "talk,who,said,feeling\n"
        "1,Ann,It rains on my birthday.,SAD\n"
        "1,Ben,Then we stay inside.,happy\n"
    )
    world.sources[1] = {"name": "dev", "uri": f"file://{tmp_path}/talk.csv", "use": "Evaluation"}
    del world.sources[2]
    world.sources[0]["uri"] = f"file://{tmp_path}/talk.csv"
    world.spec["dataset"] |= {
        "labeledDialogues": 0,
        "columns": {"dialogue": "talk", "speaker": "who", "text": "said", "label": "feeling"},
        "labelMap": {"sad": "sadness", "happy": "joy"},
    }
    assert world.problems() == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("dataset.sources", "dataset.sources[1].uri"),
        ("model", "model.uri"),
        ("storage", "storage.uri"),
    ],
)
def test_a_uri_that_cannot_be_a_path_is_found(world: World, path: str, field: str) -> None:
    uri = f"file://{world.folder}/zero%00byte"
    if path == "dataset.sources":
        world.sources[1]["uri"] = f"{uri}.jsonl"
    else:
        world.spec[path]["uri"] = uri
    (problem,) = world.problems()
    assert problem.startswith(f"{field}: {uri}")
    assert problem.endswith("contains a character that is not allowed in a path: fix the URI")


def test_a_number_of_too_many_digits_is_found(world: World) -> None:
    number = "7" * 4301
    (world.folder / "dev.csv").write_text(
        f"dialogue,turn,speaker,text,label\n1,{number},Ann,Well.,joy\n"
    )
    world.sources[1]["uri"] = f"file://{world.folder}/dev.csv"
    (problem,) = world.problems()
    assert problem.startswith(
        f"dataset.sources[1].uri: file://{world.folder}/dev.csv line 2: `turn`"
    )
    assert problem.endswith("it must be an integer")
