"""Published rows: complete, always the same bytes, and without the labels of the data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.study.made_up import DOCUMENT, LABELS, finish, study

from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_study.finished_rows import read_rows
from selfemo_study.measurements import read_counts
from selfemo_study.published_rows import SCHEMA, publish, restore
from selfemo_study.row_evolution import row_settings
from selfemo_study.row_result import CurvePoint
from selfemo_study.study_config import Study, StudyError, load_study
from selfemo_study.study_folders import StudyFolders
from selfemo_study.summary import TABLE

RIGHT = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}
STUDIES = Path(__file__).parents[3] / "studies"
PAGES = STUDIES.parent / "docs/studies"
PUBLISHED = sorted(STUDIES.glob("*-rows.parquet"))


@pytest.fixture
def folders(tmp_path: Path) -> StudyFolders:
    """Both seeds of the main row, of which the second has a curve."""
    folders = StudyFolders(tmp_path / "here")
    for seed in (1, 2):
        curve = [CurvePoint(seconds=0.1 * seed, steps=3, dev=1 / 3)] * (seed - 1)
        outcomes = ["Baseline", "Promoted"]
        finish(study(), folders, "main", seed, RIGHT, outcomes, best=1, curve=curve)
    return folders


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "published" / "made-up-rows.parquet"


def files_of(folders: StudyFolders, row: str, seed: int) -> dict[str, bytes]:
    """The files that another harness needs of a row; its predictions are not published."""
    folder = folders.row(study().row(row), seed)
    return {
        path.name: path.read_bytes() for path in (folder.settings, folder.result, folder.counts)
    }


def test_a_published_row_is_finished_elsewhere_byte_for_byte(
    folders: StudyFolders, tmp_path: Path, file: Path
) -> None:
    elsewhere = StudyFolders(tmp_path / "elsewhere")
    assert publish(study(), folders, file) == ["main-1", "main-2"]
    assert restore(study(), elsewhere, file) == ["main-1", "main-2"]
    for seed in (1, 2):
        assert files_of(elsewhere, "main", seed) == files_of(folders, "main", seed)
    there, here = read_rows(study(), elsewhere), read_rows(study(), folders)
    assert there.missing == here.missing
    for seed in (1, 2):
        one, two = (rows.finished["main"][seed] for rows in (here, there))
        assert one.result == two.result
        assert one.confusions.keys() == two.confusions.keys()
        assert all((two.confusions[key] == c).all() for key, c in one.confusions.items())


def test_the_same_rows_give_the_same_bytes(
    folders: StudyFolders, tmp_path: Path, file: Path
) -> None:
    publish(study(), folders, file)
    first = file.read_bytes()
    publish(study(), folders, file)
    assert file.read_bytes() == first
    elsewhere = StudyFolders(tmp_path / "elsewhere")
    restore(study(), elsewhere, file)
    publish(study(), elsewhere, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == first


def test_rows_that_ran_on_another_machine_stay_published(
    folders: StudyFolders, tmp_path: Path, file: Path
) -> None:
    publish(study(), folders, file)
    before = pq.read_table(file).to_pylist()
    elsewhere = StudyFolders(tmp_path / "elsewhere")
    finish(study(), elsewhere, "main", 2, RIGHT, ["Baseline", "RolledBack"], best=0)
    assert publish(study(), elsewhere, file) == ["main-2"]
    after = pq.read_table(file).to_pylist()
    assert [(line["row"], line["seed"]) for line in after] == [("main", 1), ("main", 2)]
    assert after[0] == before[0]
    assert after[1]["best"] == 0


def test_what_is_finished_stays(folders: StudyFolders, file: Path) -> None:
    publish(study(), folders, file)
    mark = folders.row(study().row("main"), 1).counts
    mark.write_bytes(b"as it was")
    assert restore(study(), folders, file) == []
    assert mark.read_bytes() == b"as it was"


def test_other_settings_are_neither_restored_nor_published(
    folders: StudyFolders, tmp_path: Path, file: Path
) -> None:
    publish(study(), folders, file)
    changed = study(spec={**DOCUMENT["spec"], "selfPlay": {"groupSize": 4}})
    assert restore(changed, StudyFolders(tmp_path / "elsewhere"), file) == []
    assert publish(changed, folders, file) == []
    assert pq.read_table(file).num_rows == 0


def test_a_row_that_follows_from_a_replaced_row_is_left_out(
    folders: StudyFolders, tmp_path: Path, file: Path
) -> None:
    outcomes = ["Baseline", "Control"]
    finish(study(), folders, "majority", 1, RIGHT, outcomes, best=1)
    assert publish(study(), folders, file) == ["main-1", "main-2", "majority-1"]
    elsewhere = StudyFolders(tmp_path / "elsewhere")
    more = {**RIGHT, (2, "dev"): 1}
    promoted = ["Baseline", "Promoted", "RolledBack"]
    finish(study(), elsewhere, "main", 1, more, promoted, best=1, steps=2)  # as many steps together
    assert publish(study(), elsewhere, tmp_path / "other.parquet") == ["main-1"]
    restore(study(), elsewhere, file)
    missing = {(one.row, one.seed): one.why for one in read_rows(study(), elsewhere).missing}
    assert missing["majority", 1] == "a row that it follows from was run again since"
    assert publish(study(), elsewhere, file) == ["main-1", "main-2"]
    left = [(line["row"], line["seed"]) for line in pq.read_table(file).to_pylist()]
    assert left == [("main", 1), ("main", 2)]


def test_without_a_file_nothing_is_restored_and_a_damaged_one_is_named(
    folders: StudyFolders, file: Path
) -> None:
    assert restore(study(), folders, file) == []
    file.parent.mkdir()
    file.write_bytes(b"PAR1 no more")
    with pytest.raises(StudyError, match=r"made-up-rows\.parquet cannot be read"):
        restore(study(), folders, file)


def strings_in(value: Any) -> Iterator[str]:
    """Every string at any depth of a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_in(key)
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)


def field_names(kind: pa.DataType) -> Iterator[str]:
    """The names of all fields at any depth of a type."""
    for index in range(kind.num_fields):
        field = kind.field(index)
        yield field.name
        yield from field_names(field.type)


def check_strings(value: Any, made: Study) -> None:
    """Fail if a value holds an emotion or a text, other than the constant row's one answer."""
    labels = made.spec["dataset"]["labels"]
    allowed = {f"always {row.label}" for row in made.rows if row.label is not None}
    for string in set(strings_in(value)) - allowed:
        assert not {*re.findall(r"\w+", string)} & {*labels}, string
        assert len(string) < 250, "longer than any message of a row"


def check_without_labels(file: Path, made: Study, utterances: set[int]) -> None:
    """Fail if a file of published rows holds the label, the answer or the text of an utterance.

    Parameters
    ----------
    file
        The Parquet file.
    made
        Its study.
    utterances
        How many utterances a split may have.
    """
    table = pq.read_table(file)
    assert table.schema.equals(SCHEMA), "a column was added: is it free of labels and texts?"
    fields = set(field_names(pa.struct(list(table.schema))))
    assert not fields & {*PREDICTIONS.names, "text", "label", "labels", "turns"}
    for line in table.to_pylist():
        # the settings name the emotions, and are exactly those of the study's file
        row = made.row(line["row"])
        assert json.loads(line.pop("settings")) == row_settings(made, row, line["seed"])
        check_strings(line, made)
        for entry in line["counts"]:
            # one matrix of integers for each dialogue; together they count each utterance once
            cells = len(made.spec["dataset"]["labels"]) ** 2
            assert {len(matrix) for matrix in entry["dialogues"]} == {cells}
            assert sum(map(sum, entry["dialogues"])) in utterances
            assert len(entry["dialogues"]) < min(utterances)


def test_no_label_answer_or_text_of_an_utterance_is_published(
    folders: StudyFolders, file: Path
) -> None:
    predictions = pq.read_table(folders.row(study().row("main"), 1).predictions)
    # the row's own files hold labels
    assert {label for (label,) in predictions["gold"].to_pylist()} == set(LABELS)
    publish(study(), folders, file)
    check_without_labels(file, study(), {60})
    words = {w for s in strings_in(pq.read_table(file).to_pylist()) for w in re.findall(r"\w+", s)}
    assert not words & set(predictions["dialogue_id"].to_pylist())


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param({"message": "gold: joy"}, id="a-label-in-a-message"),
        pytest.param({"versions": {"d0": "anger"}}, id="labels-by-dialogue"),
        pytest.param({"settings": '{"answers": ["joy", "anger"]}'}, id="answers-in-the-settings"),
        pytest.param({"message": "How are you? " * 40}, id="a-text"),
    ],
)
def test_a_leak_is_detected(folders: StudyFolders, file: Path, leak: dict[str, Any]) -> None:
    """The check above can fail: each way to publish what belongs to the data set is noticed."""
    publish(study(), folders, file)
    lines = pq.read_table(file).to_pylist(maps_as_pydicts="strict")
    lines[0].update(leak)
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), file)
    with pytest.raises(AssertionError):
        check_without_labels(file, study(), {60})


@pytest.mark.parametrize("name", ["gold", "answers", "text"])
def test_a_column_of_labels_is_detected(folders: StudyFolders, file: Path, name: str) -> None:
    publish(study(), folders, file)
    table = pq.read_table(file)
    column = pa.array([["joy", "anger"]] * table.num_rows)
    pq.write_table(table.append_column(name, column), file)
    with pytest.raises(AssertionError):
        check_without_labels(file, study(), {60})


def test_the_studies_publish_their_rows() -> None:
    names = ("emory-roles", "emorynlp", "meld-few", "meld-roles", "meld")
    assert [path.name for path in PUBLISHED] == [f"{name}-rows.parquet" for name in names]


#: The labeled utterances of dev and test.
UTTERANCES = {
    "meld": {1109, 2610},
    "meld-few": {1109, 2610},
    "meld-roles": {1109, 2610},
    "emorynlp": {954, 1035},
    "emory-roles": {954, 1035},
}


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.name)
def test_the_published_rows_of_the_studies_hold_no_labels(published: Path) -> None:
    made = load_study(STUDIES / published.name.replace("-rows.parquet", ".yaml"))
    check_without_labels(published, made, UTTERANCES[made.name])


@pytest.mark.parametrize("name", UTTERANCES)
def test_the_summaries_of_the_studies_hold_no_labels(name: str) -> None:
    made = load_study(STUDIES / f"{name}.yaml")
    table = pq.read_table(STUDIES / f"{name}.parquet")
    assert table.schema.equals(TABLE)
    check_strings(table.to_pylist(), made)
    summary = json.loads((PAGES / f"{name}.json").read_text())
    for row in summary["rows"]:  # these two are the study's own file
        assert (row.pop("why"), row.pop("set")) == (
            made.row(row["name"]).why,
            made.row(row["name"]).set,
        )
    check_strings(summary, made)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.name)
def test_every_published_row_is_restored_and_published_again_unchanged(
    published: Path, tmp_path: Path
) -> None:
    made = load_study(STUDIES / published.name.replace("-rows.parquet", ".yaml"))
    folders = StudyFolders(tmp_path / "restored")
    names = restore(made, folders, published)
    assert len(names) == pq.read_metadata(published).num_rows
    first = folders.row(made.row(made.headline), 1)
    assert read_counts(first.counts, len(made.spec["dataset"]["labels"])).keys() >= {
        (0, "dev"), (0, "test")
    }  # fmt: skip
    assert publish(made, folders, tmp_path / "again.parquet") == names
    assert (tmp_path / "again.parquet").read_bytes() == published.read_bytes()
