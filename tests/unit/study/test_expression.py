"""Expression in the studies: independent judges, gains with intervals, and the study's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.study.made_up import DOCUMENT, LABELS, finish, study

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.results import StageResult
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.inference.targets import Target
from selfemo_jobs.stages.evaluate.stage import PROGRAM
from selfemo_study import expression_answers, expression_judges
from selfemo_study.__main__ import main
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.expression_counts import (
    BASELINE_JUDGE,
    CEILING_JUDGE,
    INDEPENDENT,
    TFIDF_JUDGE,
    JudgedGeneration,
    JudgePredictions,
    ResponseFigures,
    RowExpression,
    StudyExpression,
    gain_of_row,
    row_expression,
    share_gain,
    share_of,
)
from selfemo_study.expression_files import (
    expression_file,
    read_expression,
    settings_sha256,
    stored_expression,
    write_expression,
)
from selfemo_study.expression_judges import TfidfJudge, judge_study
from selfemo_study.results_writer import write_results
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Study, StudyError
from selfemo_study.study_folders import StudyFolders

#: The row whose model is a judge.
CEILING = {
    "name": "ceiling",
    "kind": "ceiling",
    "why": "all labels",
    "steps": 1,
    "learningRates": [1e-4],
}
#: How often a dialogue is read as intended, before and after; each has three responses.
Pairs = Sequence[tuple[int, int]]


def readings(judge: str, pairs: Pairs, human: float | None = 0.6) -> JudgePredictions:
    generations = [
        JudgedGeneration(
            generation=number,
            dialogues=[(pair[number], 3) for pair in pairs],
            by_emotion=[0.0] * len(LABELS),
        )
        for number in (0, 1)
    ]
    return JudgePredictions(judge=judge, human=human, generations=generations)


def row_of(seed: int, judges: dict[str, Pairs], made: Study | None = None) -> RowExpression:
    figures = {"words": 9.0, "named": 0.1, "well_formed": 1.0}
    return RowExpression(
        row="main",
        seed=seed,
        settings=settings_sha256(made or study(), "main", seed),
        best=1,
        judges=[readings(name, pairs) for name, pairs in judges.items()],
        responses=[
            ResponseFigures(
                generation=number,
                diversity=0.7 - number / 10,
                equal_diversity=None if seed == 3 else 0.7 + number / 10,
                **figures,
            )
            for number in (0, 1)
        ],
    )


def test_a_gain_is_paired_by_dialogue_and_seed() -> None:
    before = np.array([[0, 3], [2, 3], [1, 3]])
    same_step = share_gain([(before, before + np.array([1, 0]))] * 2)
    assert [same_step.value, same_step.low, same_step.high] == pytest.approx([1 / 3] * 3)
    mixed = share_gain([(before, np.array([[3, 3], [0, 3], [1, 3]]))])
    assert mixed.value == pytest.approx(1 / 9)
    assert mixed.low < 0.0 < mixed.high
    nothing = share_gain([(before, before)])
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    assert share_of(before) == pytest.approx(1 / 3)


def test_a_gain_needs_the_same_contexts() -> None:
    before = np.array([[0, 3], [2, 3]])
    with pytest.raises(StudyError, match="same contexts: run `expression`"):
        share_gain([(before, np.array([[0, 3], [2, 4]]))])
    with pytest.raises(StudyError, match="same contexts: run `expression`"):
        share_gain([(before, before), (before[:1], before[:1])])
    with pytest.raises(ValueError, match="no seed"):
        share_gain([])


def test_the_answer_is_the_mean_of_the_independent_judges() -> None:
    up, down = [(0, 1), (1, 2)], [(1, 1), (2, 1)]
    seeds = [row_of(1, {BASELINE_JUDGE: down, TFIDF_JUDGE: up, CEILING_JUDGE: down})]
    gain = gain_of_row(seeds, INDEPENDENT)
    assert gain is not None
    assert gain.value == pytest.approx((1 / 3 - 1 / 6) / 2)
    assert gain_of_row([row_of(1, {TFIDF_JUDGE: up})], INDEPENDENT) is None
    figures = row_expression(seeds)
    assert figures is not None
    assert list(figures["judges"]) == [BASELINE_JUDGE, *INDEPENDENT]
    tfidf = figures["judges"][TFIDF_JUDGE]
    assert (tfidf["generationZero"], tfidf["best"]) == (0.166667, 0.5)
    assert tfidf["humanTurns"] == 0.6
    assert (figures["generationZero"]["diversity"], figures["best"]["diversity"]) == (0.7, 0.6)
    equal = figures["generationZero"]["equalDiversity"], figures["best"]["equalDiversity"]
    assert equal == (0.7, 0.8)
    mixed = row_expression([*seeds, row_of(3, {BASELINE_JUDGE: down})])
    assert mixed is not None
    assert mixed["best"]["equalDiversity"] is None, "seed 3 was read before there was such a figure"
    assert row_expression([]) is None


def test_the_summary_and_the_page_have_it(tmp_path: Path) -> None:
    made, folders = study(), StudyFolders(tmp_path / "studies")
    right = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}
    for seed in (1, 2):
        finish(made, folders, "main", seed, right, ["Baseline", "Promoted"], best=1)
    plain = _written(made, folders, tmp_path)
    assert (plain[0]["expression_gain"], plain[0]["expression_gain_interval"]) == (None, None)
    assert "## Expression" not in plain[1]
    pairs = {name: [(0, 1), (1, 2)] for name in (BASELINE_JUDGE, *INDEPENDENT)}
    rows = [row_of(seed, pairs) for seed in (1, 2)]
    old = rows[0].model_copy(update={"seed": 3, "settings": "f" * 64})
    write_expression(expression_file(made, tmp_path), StudyExpression(rows=[*rows, old]))
    summary, page = _written(made, folders, tmp_path)
    assert summary["expression_gain"] == pytest.approx(1 / 3, abs=1e-6)
    assert summary["expression_gain_interval"] == [summary["expression_gain"]] * 2
    main_row = next(row for row in summary["rows"] if row["name"] == "main")
    assert main_row["expression"]["seeds"] == [1, 2], "the row of other settings does not count"
    assert next(row for row in summary["rows"] if row["name"] == "no-cap")["expression"] is None
    assert "| main | tfidf-all | 0.167 | 0.500 | +0.333 [+0.333, +0.333] | 0.600 |" in page
    assert "| main | both independent judges | | | +0.333 [+0.333, +0.333] | |" in page
    assert "| main | 0.700, 0.600 | 0.700, 0.800 | 9.0, 9.0 | 0.100, 0.100 | 1.000, 1.000 |" in page


def _written(made: Study, folders: StudyFolders, to: Path) -> tuple[dict[str, Any], str]:
    page = write_results(made, folders, to, to)
    return json.loads((to / "made-up.json").read_text()), page.read_text()


def test_rows_that_were_read_earlier_stay(tmp_path: Path) -> None:
    file = tmp_path / "made-up-expression.json"
    pairs = {TFIDF_JUDGE: [(0, 1)]}
    write_expression(file, StudyExpression(rows=[row_of(2, pairs)]))
    write_expression(file, StudyExpression(rows=[row_of(1, pairs)]))
    newer = row_of(2, {TFIDF_JUDGE: [(1, 1)]})
    write_expression(file, StudyExpression(rows=[newer]))
    stored = read_expression(file)
    assert [row.seed for row in stored.rows] == [1, 2]
    assert stored.rows[1] == newer
    file.write_text("{}")
    with pytest.raises(StudyError, match="cannot be read"):
        read_expression(file)


class Words:
    """A classifier that finds the first label among the words."""

    def predict(self, texts: Sequence[str]) -> list[str]:
        return [next((label for label in LABELS if label in text), LABELS[0]) for text in texts]


def evaluated(made: Study, folders: StudyFolders, volumes: DataVolumes, model: Path) -> list[Path]:
    """Run the real evaluation of two generations of the main row with a tiny model."""
    task = RowTask(made, made.row("main"), 1, folders, volumes)
    run = folders.run(made, task.row, 1).absolute()
    manifests = []
    for generation in (0, 1):
        folder = run / stage_prefix(generation, Stage.EVALUATE)
        config = StageConfig(
            stage=Stage.EVALUATE,
            run="default/made-up-main-00000000",
            generation=generation,
            seed=generation,
            spec=task.spec.model_copy(
                update={"storage": task.spec.storage.model_copy(update={"uri": run.as_uri()})}
            ),
            policy_uri=model.as_uri(),
            judge_uri=model.as_uri(),
            output=folder.as_uri(),
        )
        result = PROGRAM.run(config)
        assert isinstance(result, StageResult)
        manifests.append(folder / "manifest.json")
    return manifests


def test_judges_read_the_stored_responses_of_a_row(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real evaluations, a real TF-IDF, and a tiny model as the ceiling."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.setenv("SELFEMO_DATA", f"made={tmp_path}")
    lines = [
        {
            "id": f"d{d}",
            "turns": [
                {"speaker": "AB"[i % 2], "text": f"so {LABELS[(d + i) % 3]}", "labels": [label]}
                for i in range(4)
                for label in [LABELS[(d + i) % 3]]
            ],
        }
        for d in range(4)
    ]
    for name in ("train", "dev"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    play = {"engine": "Transformers", "maxTokens": {"recognizer": 4, "responder": 6}}
    spec = {**DOCUMENT["spec"], "selfPlay": play, "evaluation": {"bootstrap": 0, "batchSize": 8}}
    made = study(spec=spec, rows=[*DOCUMENT["rows"], CEILING])
    folders = StudyFolders(tmp_path / "studies")
    volumes = DataVolumes.of({"made": str(tmp_path)}, folders)
    manifests = evaluated(made, folders, volumes, tiny_model)
    right = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}
    finish(made, folders, "main", 1, right, ["Baseline", "Promoted"], best=1)
    with pytest.raises(StudyError, match="row ceiling, seed 1 has no model here"):
        judge_study(made, folders, volumes, ["main"], [1], print)
    finish(made, folders, "ceiling", 2, right, ["Baseline", "Control"], best=1)
    models = folders.row(made.row("ceiling"), 2).path / "models"
    shutil.copytree(tiny_model, models / "rate-0.0001")
    expression = judge_study(made, folders, volumes, ["main", "no-cap"], [1, 2], lambda _: None)
    (row,) = expression.rows
    assert (row.row, row.seed, row.best) == ("main", 1, 1)
    assert [one.judge for one in row.judges] == [BASELINE_JUDGE, *INDEPENDENT]
    stored = stored_expression(manifests[0])
    assert stored is not None
    baseline, tfidf, ceiling = row.judges
    assert share_of(baseline.counts(0)) == pytest.approx(stored.score.as_intended, abs=1e-6)
    # the ceiling is the same model here, so it reads what the baseline has read
    assert [g.dialogues for g in ceiling.generations] == [g.dialogues for g in baseline.generations]
    assert ceiling.human == pytest.approx(baseline.human)
    assert tfidf.human == 1.0, "each real turn has the word of its label, as in the training"
    assert row.responses[0].diversity == stored.score.diversity
    equal = [one.equal_diversity for one in row.responses]
    assert equal == pytest.approx([stored.score.diversity] * 2), "the same responses"
    gain = gain_of_row([row], INDEPENDENT)
    assert gain is not None
    assert gain.value == 0.0, "both generations are the same model"
    # generation 0 and the best one answer more contexts, and their responses are kept
    run = folders.run(made, made.row("main"), 1)
    trained = run / stage_prefix(1, Stage.TRAIN)
    shutil.copytree(tiny_model, trained / "model")
    (trained / "manifest.json").write_text('{"model": "model"}')
    monkeypatch.setattr(expression_answers, "starting_model", lambda _: tiny_model)
    more = judge_study(made, folders, volumes, ["main"], [1], lambda _: None, 3).rows[0]
    assert [len(one.generations[0].dialogues) for one in more.judges] == [3] * 3
    first = share_of(more.judges[0].counts(0)[:1])
    assert first == share_of(baseline.counts(0)), "the first context is that of the evaluation"
    monkeypatch.setattr(expression_answers, "respond", None)
    again = judge_study(made, folders, volumes, ["main"], [1], lambda _: None, 3).rows[0]
    assert again == more


def test_an_empty_response_is_not_read() -> None:
    turn = stored_turn("so joy")
    assert TfidfJudge(Words()).read([None, turn, None]) == [None, "joy", None]
    assert TfidfJudge(Words()).read([None]) == [None]


def stored_turn(text: str) -> Target:
    from selfemo_jobs.datasets.dialogue import Utterance

    return Target("d", 0, Utterance("A", text))


def test_without_a_ceiling_row_there_is_no_judge(tmp_path: Path) -> None:
    folders = StudyFolders(tmp_path)
    with pytest.raises(StudyError, match="no row of kind `ceiling`"):
        expression_judges.independent_judges(study(), folders, DataVolumes.of({}, folders))


def test_the_command_says_that_no_row_has_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "made-up.yaml"
    file.write_text(json.dumps({**DOCUMENT, "data": {"made": str(tmp_path)}}))
    root = str(tmp_path / "root")
    monkeypatch.setattr("sys.argv", ["study", "expression", str(file), "--root", root])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no finished evolution row has responses here" in capsys.readouterr().err
