from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.unit.study.made_up import AFTER, DOCUMENT, MORE, SOURCE, study

from selfemo_api.spec import EvolutionSpec, Source, Use
from selfemo_jobs.stages.warmstart.options import share_of
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.label_separation import check_label_separation
from selfemo_study.row_evolution import (
    evolution_document,
    evolution_of,
    row_settings,
    validation_problems,
)
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, Study, StudyError, load_study, with_required_rows
from selfemo_study.study_folders import StudyFolders

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_the_studies_are_valid(path: Path) -> None:
    found = load_study(path)
    assert found.name == path.stem
    assert found.row(found.headline).set == {}  # what the others are compared with
    kinds = {row.kind for row in found.rows}
    # only the studies of the roles have a baseline at rest, beside which it says something
    roles = {Kind.ADAMATCH} if found.without_responder else set()
    assert kinds - roles == set(Kind) - {Kind.ADAMATCH}
    assert [problem for row in found.rows for problem in validation_problems(found, row)] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_test_is_not_seen_before_the_end(path: Path) -> None:
    found = load_study(path)
    for row in (r for r in found.rows if r.kind is Kind.EVOLUTION):
        spec = evolution_document(found, row, 1)["spec"]
        sources = spec["dataset"]["sources"]
        assert [s["name"] for s in sources if s["use"] == "Evaluation"] == ["dev"]
        labeled = [s for s in sources if s["use"] == "Labeled"]
        (pool,) = (s for s in sources if s["use"] == "SelfPlay")
        for source in labeled:  # the warm start's share, and nothing of the pool
            assert source["uri"] == found.warm_start.source.uri == pool["uri"]
            assert source.get("offset", 0) + source["limit"] <= pool["offset"]


def test_a_row_changes_what_it_says_and_nothing_else() -> None:
    made = study()
    main, changed = (evolution_document(made, made.row(n), 2)["spec"] for n in ("main", "no-cap"))
    assert changed.pop("overrides") == {"flywheel": {"maxShare": 1}}
    assert main == changed
    assert "flywheel" not in made.spec  # the study itself stays as it was
    assert main["seed"] == 2
    assert main["model"]["uri"] == "data://study-models/seed-2"
    assert evolution_of(made, made.row("no-cap"), 2).spec.flywheel.max_share == 1


def test_an_unknown_field_is_named_with_its_row() -> None:
    rows = [*DOCUMENT["rows"], {"name": "odd", "kind": "evolution", "why": "?", "set": {"x.y": 1}}]
    made = study(rows=rows)
    assert validation_problems(made, made.row("odd")) == ["row odd: spec.x: unknown field"]
    assert validation_problems(made, made.row("main")) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"promptTemplates": {"recognize": "{{ text }}"}}, "promptTemplates: the warm start"),
        ({"prompts": "data://made/prompts.yaml"}, "prompts: the warm start .* data://made/prompts"),
    ],
)
def test_prompts_with_which_the_warm_start_cannot_train_are_refused(
    model: dict[str, Any], words: str
) -> None:
    made = study(spec={**DOCUMENT["spec"], "model": {"prompts": "compact-v1", **model}})
    for name, problems in (("main", 1), ("majority", 1), ("constant", 0)):
        found = validation_problems(made, made.row(name))
        assert len(found) == problems
        assert all(re.search(rf"row {name}: spec\.model\.{words}", text) for text in found)


def test_more_generations_than_the_history_holds_are_refused() -> None:
    made = study(spec={**DOCUMENT["spec"], "stopping": {"maxGenerations": 12}})
    assert "must be at most 9" in validation_problems(made, made.row("main"))[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"kind": "supervised"}, "learningRates"),
        ({"kind": "ceiling", "learningRates": [1e-4]}, "steps"),
        ({"kind": "constant"}, "label"),
        ({"kind": "tfidf", "set": {"seed": 1}}, "evolution, on-policy and adamatch rows only"),
        (
            {"kind": "majority", "learningRates": [1e-4], "like": "constant"},
            "`like` is `constant`, which is not the name of an evolution row",
        ),
        ({"kind": "evolution", "name": "main"}, "`rows`: names must not repeat: main"),
        ({"kind": "evolution", "name": "Not A Name"}, "pattern"),
        ({"kind": "evolution", "overrides": {}}, "Extra inputs"),
        (
            {"kind": "evolution", "after": "constant"},
            "`after` is `constant`, which is not the name of a supervised row",
        ),
        ({"kind": "tfidf", "after": "main"}, "`after` is for evolution and supervised rows only"),
        (
            {"kind": "supervised", "learningRates": [1e-4], "after": "majority"},
            "`after` is `majority`, which is not the name of an evolution row",
        ),
        ({"kind": "evolution", "seeds": [1, 3]}, r"\[3\] are not among the study's"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        study(rows=[*DOCUMENT["rows"], {"name": "odd", "why": "?", **row}])


def test_a_control_continues_an_evolution_that_begins_with_the_warm_start() -> None:
    """The best model of another one may be that of the row before it."""
    control = {"kind": "supervised", "learningRates": [1e-4], "steps": 5, "why": "?"}
    chain = [
        {**control, "name": "first"},
        {"kind": "evolution", "name": "second", "why": "?", "after": "first"},
        {**control, "name": "third", "after": "second"},
    ]
    study(rows=[*DOCUMENT["rows"], *chain[:2]])
    with pytest.raises(ValueError, match="row third: `after` is `second`, which begins `after`"):
        study(rows=[*DOCUMENT["rows"], *chain])


def test_the_labeled_share_begins_with_the_file() -> None:
    warm_start = DOCUMENT["warmStart"]
    source = {**warm_start["source"], "offset": 5}
    with pytest.raises(ValueError, match=r"`source.offset` must be 0"):
        study(warmStart={**warm_start, "source": source})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none\.yaml cannot be read"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(StudyError, match=r"bad\.yaml is not YAML"):
        load_study(tmp_path / "bad.yaml")
    (tmp_path / "thin.yaml").write_text("name: thin\n")
    with pytest.raises(StudyError, match=r"thin\.yaml: title: Field required"):
        load_study(tmp_path / "thin.yaml")


def test_a_control_comes_after_the_row_it_is_like() -> None:
    made = study()
    assert [r.name for r in with_required_rows(made, ["majority"])] == ["main", "majority"]
    assert [r.name for r in with_required_rows(made, ["constant"])] == ["constant"]
    assert [r.name for r in with_required_rows(made, ["majority", "main"])] == ["main", "majority"]
    with pytest.raises(StudyError, match="no row `other`"):
        with_required_rows(made, ["other"])


def test_an_evolution_comes_after_the_row_that_trains_its_start() -> None:
    made = study(rows=[*DOCUMENT["rows"], AFTER, MORE])
    assert [r.name for r in with_required_rows(made, ["after-more"])] == [
        "main",
        "more",
        "after-more",
    ]
    row = made.row("after-more")
    assert evolution_of(made, row, 2).spec.model.uri == "data://study-models/more-seed-2"
    other = study(rows=[*DOCUMENT["rows"], AFTER, {**MORE, "learningRates": [1e-3]}])
    assert row_settings(made, row, 1) != row_settings(other, row, 1)


def test_the_row_without_the_responder_is_one_of_the_study() -> None:
    assert study(withoutResponder="no-cap").without_responder == "no-cap"
    with pytest.raises(ValueError, match="`withoutResponder`: there is no row `other`"):
        study(withoutResponder="other")


def test_settings_that_are_not_given_change_no_result() -> None:
    made, rounds = study(), study(warmStart={**DOCUMENT["warmStart"], "rounds": 3})
    plain, at_rest = (row_settings(one, one.row("main"), 1)["warmStart"] for one in (made, rounds))
    assert "rounds" not in plain  # rows that were published before stay valid
    assert at_rest == {**plain, "rounds": 3}


def test_a_row_begun_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    made, folders = study(), StudyFolders(tmp_path)
    folder = folders.row(made.row("main"), 1)
    folder.begin(row_settings(made, made.row("main"), 1))
    reworded = study(title="Other words", rows=[{**DOCUMENT["rows"][0], "why": "new words"}])
    folder.begin(row_settings(reworded, reworded.row("main"), 1))
    changed = study(spec={**DOCUMENT["spec"], "selfPlay": {"groupSize": 4}})
    with pytest.raises(StudyError, match=r"begun with other settings \(spec\)"):
        folder.begin(row_settings(changed, changed.row("main"), 1))


def test_a_control_follows_from_the_row_it_is_like() -> None:
    made = study()
    other: Study = study(
        rows=[{**DOCUMENT["rows"][0], "set": {"flywheel.replay": 0}}, *DOCUMENT["rows"][1:]]
    )
    for name, equal in (("majority", False), ("no-cap", True)):
        one, two = (row_settings(m, m.row(name), 1) for m in (made, other))
        assert (one == two) is equal


def test_self_play_keeps_away_from_the_labels_that_were_read() -> None:
    spec = evolution_of(study(), study().row("main"), 1).spec
    labeled = Source.model_validate(SOURCE)
    check_label_separation(spec, labeled, 5)
    with pytest.raises(StudyError, match="set its `offset` to 6"):
        check_label_separation(spec, labeled, 6)
    elsewhere = labeled.model_copy(update={"uri": "data://made/other.jsonl"})
    check_label_separation(spec, elsewhere, 6)


def test_self_play_reads_the_labels_of_the_share_alone() -> None:
    spec = evolution_of(study(), study().row("main"), 1).spec
    labeled = Source.model_validate(SOURCE)
    gold = labeled.model_copy(update={"name": "gold", "use": Use.LABELED, "limit": 5})
    (pool,) = spec.dataset.self_play

    def with_gold(**changes: object) -> EvolutionSpec:
        sources = [gold.model_copy(update=changes), pool, *spec.dataset.evaluation]
        dataset = spec.dataset.model_copy(update={"sources": sources})
        return spec.model_copy(update={"dataset": dataset})

    check_label_separation(with_gold(), labeled, 5)
    check_label_separation(with_gold(offset=2, limit=3), labeled, 5)
    for changes in (
        {"limit": 6},
        {"limit": None},
        {"offset": 3, "limit": 3},
        {"uri": "data://made/other.jsonl"},
    ):
        with pytest.raises(
            StudyError, match="`gold` reads labels that the warm start does not read"
        ):
            check_label_separation(with_gold(**changes), labeled, 5)


def test_the_smallest_study_fits_the_demo_dialogues() -> None:
    """`make study` refuses a self-play source that overlaps the labeled subset."""
    root = STUDIES[0].parents[1]
    found = load_study(root / "studies" / "small.yaml")
    lines = (root / "studies" / "demo" / "train.jsonl").read_text().splitlines()
    count = share_of(len(lines), found.warm_start.share)
    check_label_separation(
        evolution_of(found, found.rows[0], 1).spec, found.warm_start.source, count
    )


def test_an_utterance_of_the_smallest_study_has_one_label() -> None:
    """Studies measure one label for each utterance; some of `examples/demo` have several."""
    folder = STUDIES[0].parents[1] / "studies" / "demo"
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    counts = {len(turn["labels"]) for line in lines for turn in json.loads(line)["turns"]}
    assert counts == {1}


def test_the_labels_of_a_rows_own_sources_are_checked_too(tmp_path: Path) -> None:
    turn = '{"speaker": "A", "text": "Hi", "label": "joy"}'
    lines = [f'{{"id": "{number}", "turns": [{turn}, {turn}]}}' for number in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    sources = [{**source, "offset": 4} for source in DOCUMENT["spec"]["dataset"]["sources"][:1]]
    early = {"name": "early", "kind": "evolution", "why": "?"}
    early["set"] = {"dataset.sources": [*sources, *DOCUMENT["spec"]["dataset"]["sources"][1:]]}
    made = study(rows=[*DOCUMENT["rows"], early])
    folders = StudyFolders(tmp_path / "study")
    volumes = DataVolumes.of({"made": str(tmp_path)}, folders)
    RowTask(made, made.row("main"), 1, folders, volumes).check_labels()
    with pytest.raises(StudyError, match="begins at dialogue 4, but the warm start reads"):
        RowTask(made, made.row("early"), 1, folders, volumes).check_labels()
