"""`selfemo compare`: which runs it takes, what it prints and writes, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import recorded, recorded_demo
from tests.unit.jobs.report import made_up, made_up_answers
from tests.unit.jobs.report.test_report import Page

from selfemo_api.local_runs import local_uid
from selfemo_api.spec import StorageSpec
from selfemo_jobs.evaluation.paired_gain import gain_between
from selfemo_jobs.models.best_manifest import BestManifest, best_uri
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.use_commands.__main__ import main

SECOND = "default/other-00000001"
Compare = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=f"file://{tmp_path}/store"))


@pytest.fixture
def runs(store: Store) -> list[str]:
    """The URIs of two runs with the same evaluation files."""
    return [
        made_up.write_run(store, answers=True),
        made_up.write_run(store, (1, made_up.Stage.PUBLISH), answers=True, run_name=SECOND),
    ]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    """Run the command; return its standard output, as JSON with ``-o json``."""

    def run(*words: str) -> Any:
        assert main(["compare", *words]) == 0
        output = capsys.readouterr().out
        return json.loads(output) if "json" in words else output

    return run


def test_the_gain_between_runs_is_paired(runs: list[str], compare: Compare) -> None:
    result = compare(*runs, "-o", "json")
    assert [run["run"] for run in result["runs"]] == [made_up.RUN, SECOND]
    assert [run["best"] for run in result["runs"]] == [3, 1]
    first, second = (made_up_answers.answers(made_up.LABELS, g) for g in (3, 1))
    expected = gain_between(first, second, made_up.LABELS, sets=False, resamples=200, seed=1003)
    for row, dataset in zip(result["gains"], ("dev", "test"), strict=True):
        assert row == {
            "dataset": dataset, "first": "A", "second": "B",
            "gain": expected.gain, "low": expected.low, "high": expected.high,
            "otherUtterances": False,
        }  # fmt: skip
    assert result["settings"] == {}
    generations = result["runs"][0]["generations"]
    assert [g["scores"]["dev"]["weightedF1"] for g in generations] == list(made_up.F1)
    assert generations[0]["scores"]["dev"]["gain"] is None
    assert generations[1]["scores"]["dev"]["gainLow"] is not None


def test_other_files_have_no_gain(compare: Compare) -> None:
    places = [str(module.STORAGE / module.RUN) for module in (recorded_demo, recorded)]
    output = compare(*places)
    assert "B and A have no evaluation file in common: there is no paired gain." in output
    assert "over A" not in output
    lines = [line.split() for line in output.splitlines()]
    assert ["A", "0.5321", "0.5377", "0.5411"] in lines
    assert ["training.epochs", "8", "1"] in lines
    assert ["reward.groupWeight", '"Consistency"', "-"] in lines


def test_a_state_folder_has_the_spec_and_the_best_generation(
    compare: Compare, tmp_path: Path
) -> None:
    state = tmp_path / "default" / "demo"
    state.mkdir(parents=True)
    evolution = recorded_demo.evolution()
    (state / "evolution.json").write_text(evolution.model_dump_json(by_alias=True))
    file = tmp_path / "demo.yaml"
    document = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "demo"},
        "spec": evolution.written,
    }
    file.write_text(yaml.safe_dump(document))
    result = compare(str(state), str(file), "--state", str(tmp_path), "-o", "json")
    assert [run["best"] for run in result["runs"]] == [1, 1]
    assert [run["recipe"] for run in result["runs"]] == ["small-v1", "small-v1"]
    assert result["settings"] == {}
    assert {row["dataset"]: (row["gain"], row["low"], row["high"]) for row in result["gains"]} == {
        "dev": (0.0, 0.0, 0.0), "test": (0.0, 0.0, 0.0),
    }  # fmt: skip


def test_a_file_without_a_state_is_found_in_the_storage(
    compare: Compare, store: Store, runs: list[str], tmp_path: Path
) -> None:
    run = f"default/mine-{local_uid('default', 'mine')}"
    made_up.write_run(store, answers=True, run_name=run)
    file = tmp_path / "mine.yaml"
    spec = {**recorded_demo.evolution().written, "storage": {"uri": store.storage.uri}}
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "selfemo.dev/v1alpha1",
                "kind": "EmotionEvolution",
                "metadata": {"name": "mine"},
                "spec": spec,
            }
        )
    )
    result = compare(runs[0], str(file), "--state", str(tmp_path / "none"), "-o", "json")
    assert result["runs"][1]["run"] == run


def test_the_best_generation_of_a_folder_is_the_recorded_one(
    compare: Compare, store: Store, runs: list[str]
) -> None:
    best = BestManifest(run=made_up.RUN, generation=1, f1=0.4813, model="generations/001/x")
    store.put(best_uri(runs[0]), best.encode())
    result = compare(join(runs[0], "best/manifest.json"), f"{runs[1]}/", "-o", "json")
    assert result["runs"][0]["best"] == 1
    assert result["gains"][0]["gain"] == 0.0


def test_the_page_has_every_run_and_loads_nothing(
    compare: Compare, runs: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "new" / "runs.html"
    output = compare(*runs, str(recorded.STORAGE / recorded.RUN), "--to", str(page))
    assert output.splitlines()[-1] == str(page)
    html = page.read_text()
    parsed = Page(html)
    assert parsed.headings == [
        "Runs", "Scores of the best models", "Gains between runs", "F1 on dev by generation",
        "F1 on test by generation", "F1 on demo-dev by generation",
        "F1 on demo-test by generation", "Settings that differ", "Cost",
    ]  # fmt: skip
    for text in (made_up.RUN, SECOND, recorded.RUN, "B over A", "C and A have no evaluation file"):
        assert text in parsed.text
    links = {value for name, value in parsed.attributes if name == "href"}
    assert links == {f"#{value}" for name, value in parsed.attributes if name == "id"} & links
    assert "script" not in parsed.tags
    assert not any(word in html for word in ("http:", "https:", "url(", "@import"))


def test_errors_are_one_line(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "evolution.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([runs[0]], "there is 1 run: specify 2 to 8"),
        ([runs[0]] * 9, "there are 9 runs: specify 2 to 8"),
        ([runs[0], str(tmp_path / "gone")], "gone does not exist"),
        ([runs[0], str(tmp_path / "broken")], "evolution.json cannot be read"),
        ([runs[0], str(tmp_path / "empty")], "contains no finished stage"),
        ([runs[0], "hf://owner/name"], "hf://owner/name is not a run"),
        ([runs[0], "s3://bucket"], "s3://bucket is not the folder of a run"),
        ([*runs, "--to", "/proc/none/page.html"], "/proc/none/page.html cannot be written"),
    ):
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert error.startswith("selfemo compare: ")
