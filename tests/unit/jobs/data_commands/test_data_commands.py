"""``selfemo data check`` and ``convert``: output, exit codes, options."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.dialogue_files import WRITERS, dialogue, read, write_lines, write_table

from selfemo_jobs.data_commands.__main__ import main
from selfemo_jobs.data_commands.options import source_uri
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.json_lines import to_json_lines

Run = Callable[..., tuple[int, str, str]]

TALKS = [
    dialogue("a", ("Ann", "Where are the keys to the car?", "calm"), ("Bo", "No idea.", "cross")),
    dialogue("b", ("Ann", "I found them under the sofa!", "glad"), ("Bo", "哈哈，太好了！")),
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command, and return its exit code and output."""
    monkeypatch.setenv("SELFEMO_DATA", "")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return int(code), output.out, output.err

    return call


class TestCheck:
    def test_table(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        WRITERS["csv"](tmp_path, TALKS)
        code, out, _ = run("check", "d.csv")
        assert code == 0
        assert out == (
            "d.csv (CSV)\n  dialogues  2\n  turns      4; per dialogue 2 to 2, mean 2, median "
            "2\n  speakers   2\n  words      per turn 2 to 7, mean 5, median 5.5\n  labels     "
            "calm 1 (25.0%), cross 1 (25.0%), glad 1 (25.0%)\n  unlabeled  1 (25.0%)\n\n1 "
            "source read, 0 errors, 0 warnings\n"
        )

    def test_json_findings_and_exit_code(self, run: Run, tmp_path: Path) -> None:
        good = WRITERS["jsonl"](tmp_path, TALKS)
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"id": 1}\n')
        code, out, _ = run("check", good, bad, tmp_path / "none.csv", "-o", "json")
        report = json.loads(out)
        assert code == 2
        assert [source["field"] for source in report["sources"]] == [str(good)]
        assert [(f["severity"], f["field"]) for f in report["findings"]] == [
            ("Error", str(bad)),
            ("Error", str(tmp_path / "none.csv")),
        ]
        assert report["sources"][0]["length"] == {"least": 2, "median": 5.5, "mean": 5.0, "most": 7}

    def test_label_set_columns_and_map(self, run: Run, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"Satz": "Hallo", "label": "froh"}])
        options = ("--columns", "text=Satz", "--labels", "glad,calm")
        code, out, _ = run("check", path, *options)
        assert code == 2
        assert "`label` is `froh`, an unknown emotion: `dataset.labels` contains glad, calm" in out
        code, out, _ = run("check", path, *options, "--label-map", "froh=glad,müde=")
        assert code == 0
        assert "labels     glad 1 (100.0%)" in out

    def test_overlap_of_two_files(self, run: Run, tmp_path: Path) -> None:
        one, two = (write_lines(tmp_path / name, []) for name in ("one.jsonl", "two.jsonl"))
        one.write_bytes(to_json_lines(TALKS))
        two.write_bytes(to_json_lines(TALKS[1:]))
        code, out, _ = run("check", one, two)
        assert code == 0
        assert f"  {two}: 1 dialogue is also in source `{one}`, in whole or with three turns" in out
        assert out.endswith("2 sources read, 0 errors, 1 warning\n")

    def test_tokens_of_a_model(self, run: Run, tmp_path: Path, tiny_model: Path) -> None:
        from selfemo_jobs.models.fetch import load_tokenizer

        path = WRITERS["jsonl"](tmp_path, TALKS)
        code, out, _ = run("check", path, "--model", tiny_model, "-o", "json")
        assert code == 0
        tokenizer = load_tokenizer(tiny_model)
        lengths = [
            len(tokenizer(turn.text, add_special_tokens=False)["input_ids"])
            for talk in TALKS
            for turn in talk.turns
        ]
        report = json.loads(out)
        assert report["unit"] == "tokens"
        assert report["sources"][0]["length"]["most"] == max(lengths)
        assert report["sources"][0]["length"]["least"] == min(lengths)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                ("--columns", "textt=a"),
                "--columns textt=…: the part must be one of dialogue, turn, speaker,",
            ),
            (("--columns", "text"), "--columns text: must be NAME=VALUE"),
            (("--columns", "text=a", "--columns", "text=b"), "--columns: `text` appears twice"),
            (("--labels", " , "), "--labels contains no label"),
            (("--data", "x"), "--data x: must be NAME=FOLDER"),
            (("--data", "x=/nonexistent"), "--data x=/nonexistent: /nonexistent is not a folder"),
        ],
    )
    def test_options_that_are_wrong(
        self, run: Run, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        code, out, err = run("check", WRITERS["csv"](tmp_path, TALKS), *options)
        assert (code, out) == (2, "")
        assert err.startswith(f"selfemo data check: {message}")

    def test_data_volume_with_a_colon(self, run: Run, tmp_path: Path) -> None:
        folder = tmp_path / "x:y"
        folder.mkdir()
        code, _, err = run("check", "data://d/a.jsonl", "--data", f"d={folder}")
        assert code == 2
        assert f"--data d={folder}: {folder} contains a colon: rename the folder" in err

    def test_data_volumes_and_blanks(self, run: Run, tmp_path: Path) -> None:
        folder = tmp_path / "Meine Ablage"
        folder.mkdir()
        WRITERS["jsonl"](folder, TALKS).rename(folder / "Gespräche 1.jsonl")
        assert run("check", "data://d/Gespr%C3%A4che%201.jsonl", "--data", f"d={folder}")[0] == 0
        assert run("check", folder / "Gespräche 1.jsonl")[0] == 0
        assert run("check", folder / "Gespr*.jsonl")[0] == 0


class TestEvolution:
    @pytest.fixture
    def evolution(self, tmp_path: Path) -> Path:
        data = tmp_path / "my data"
        data.mkdir()
        WRITERS["csv"](data, TALKS)
        WRITERS["jsonl"](data, TALKS)
        path = tmp_path / "evolution.yaml"
        path.write_text(
            """
apiVersion: selfemo.dev/v1alpha1
kind: EmotionEvolution
metadata: {name: mine}
spec:
  model: {uri: "package://smollm2?layers=6"}
  dataset:
    labels: [calm, cross, glad, sad]
    sources:
      - {name: some, uri: "data://d/d.jsonl", use: Labeled, limit: 1}
      - {name: train, uri: "data://d/d.jsonl", use: SelfPlay, offset: 1}
      - {name: dev, uri: "file://./my%20data/d.csv", use: Evaluation}
  storage: {uri: "file://./results"}
"""
        )
        return path

    def test_report(
        self, run: Run, tmp_path: Path, evolution: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, out, _ = run("check", evolution, "--data", f"d={tmp_path}/my data", "-o", "json")
        report = json.loads(out)
        assert code == 0
        keys = ("name", "use", "format", "dialogues")
        assert [tuple(source[key] for key in keys) for source in report["sources"]] == [
            ("some", "Labeled", "JSONL", 1),
            ("train", "SelfPlay", "JSONL", 1),
            ("dev", "Evaluation", "CSV", 2),
        ]
        copy = "in whole or with three turns in a row (the first: {0}, like {0} there)"
        spoiled = "1 dialogue is also in source `{1}`, " + copy + ": its scores are too good"
        assert [(f["field"], f["message"]) for f in report["findings"]] == [
            ("dataset.sources[0]", "no turn has the label `glad`, `sad`"),
            ("dataset.sources[2]", "no turn has the label `sad`"),
            ("dataset.sources[2]", spoiled.format("a", "some")),
            ("dataset.sources[2]", spoiled.format("b", "train")),
        ]

    def test_missing_file_and_other_labels(
        self, run: Run, tmp_path: Path, evolution: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        evolution.write_text(evolution.read_text().replace("glad, sad", "sad"))
        code, out, _ = run("check", evolution, "--data", f"d={tmp_path}")
        assert code == 2
        assert "  dataset.sources[0]: data://d/d.jsonl: " in out
        assert "`label` is `glad`, an unknown emotion" in out

    def test_invalid_evolution(self, run: Run, evolution: Path) -> None:
        evolution.write_text(evolution.read_text().replace("use: SelfPlay", "use: Play"))
        code, _, err = run("check", evolution)
        assert code == 2
        assert "spec.dataset.sources[1].use" in err

    def test_options_that_the_evolution_has(self, run: Run, evolution: Path) -> None:
        code, _, err = run("check", evolution, "--labels", "a,b")
        assert code == 2
        assert err.endswith("already defines its sources: omit --labels\n")


class TestConvert:
    @pytest.mark.parametrize("writer", WRITERS)
    def test_any_format(self, run: Run, tmp_path: Path, writer: str) -> None:
        path = WRITERS[writer](tmp_path, TALKS)
        output = tmp_path / "new.jsonl"
        code, out, err = run("convert", path, "--to", output)
        assert (code, out) == (0, f"{output}: 2 dialogues, 4 turns\n")
        assert "warning" in err or not err
        assert output.read_bytes() == to_json_lines(TALKS)
        assert read(output).dialogues == TALKS

    def test_columns_map_and_compression(self, run: Run, tmp_path: Path) -> None:
        rows = [{"talk": 1, "who": "A", "text": "Hi", "feel": mood} for mood in ("0", "1", "")]
        path = write_table(tmp_path / "t.csv", rows)
        options = ("--columns", "dialogue=talk,speaker=who", "--columns", "label=feel")
        outputs = [tmp_path / name for name in ("x.jsonl", "y.jsonl.gz", "z.jsonl.gz")]
        for output in outputs:
            assert (
                run("convert", path, "--to", output, *options, "--label-map", "0=glad,1=")[0] == 0
            )
        first, second, third = (output.read_bytes() for output in outputs)
        assert gzip.decompress(second) == first == gzip.decompress(third)
        assert second == third
        assert json.loads(first) == {
            "id": "1",
            "turns": [
                {"speaker": "A", "text": "Hi", "labels": ["glad"]},
                {"speaker": "A", "text": "Hi"},
                {"speaker": "A", "text": "Hi"},
            ],
        }

    def test_without_labels(self, run: Run, tmp_path: Path) -> None:
        path = WRITERS["jsonl"](tmp_path, TALKS)
        output = tmp_path / "new.jsonl"
        assert run("convert", path, "--to", output, "--no-labels")[0] == 0
        assert b"labels" not in output.read_bytes()

    def test_warnings(self, run: Run, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"text": "it\x92s"}])
        _, _, err = run("convert", path, "--to", tmp_path / "new.jsonl")
        assert err.splitlines()[0] == (
            f"warning: {path}: 1 Windows-1252 character converted to Unicode (first: line 2)"
        )

    def test_file_that_would_replace_its_source(self, run: Run, tmp_path: Path) -> None:
        path = WRITERS["jsonl"](tmp_path, TALKS)
        before = path.read_bytes()
        for source in (path, tmp_path):
            code, _, err = run("convert", source, "--to", path)
            assert code == 2
            assert err == (
                f"selfemo data convert: {path} is one of the source files: choose another --to\n"
            )
        assert path.read_bytes() == before

    def test_nothing_is_written_after_an_error(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_text('{"id": 1}\n')
        assert run("convert", path, "--to", tmp_path / "new.jsonl")[0] == 2
        assert not (tmp_path / "new.jsonl").exists()
        good = WRITERS["csv"](tmp_path, TALKS)
        code, _, err = run("convert", good, "--to", tmp_path / "none" / "new.jsonl")
        assert code == 2
        assert "new.jsonl cannot be written: No such file or directory" in err

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.builds(
                Utterance,
                st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
                .map(lambda text: " ".join(text.split()))
                .filter(bool),
                st.just("Hi"),
                st.sampled_from([(), ("glad",), ("glad", "高兴")]),
            ),
            min_size=1,
        )
    )
    def test_any_dialogue_comes_back(self, tmp_path: Path, turns: list[Utterance]) -> None:
        path = tmp_path / "any.jsonl"
        path.write_bytes(to_json_lines([Dialogue("d", tuple(turns))]))
        assert read(path).dialogues == [Dialogue("d", tuple(turns))]


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("data://v/x.csv", "data://v/x.csv"),
        ("hf://o/n?split=a", "hf://o/n?split=a"),
        ("/a b/c%20d.csv", "file:///a%20b/c%2520d.csv"),
        ("/a b/*.csv", "file:///a%20b/*.csv"),
        ("/a/[ab] c.csv", "file:///a/[ab]%20c.csv"),
    ],
)
def test_source_on_the_command_line(text: str, uri: str) -> None:
    assert source_uri(text) == uri


def test_path_that_exists_is_not_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a[1].csv").write_text("x")
    assert source_uri("a[1].csv") == f"{tmp_path.as_uri()}/a%5B1%5D.csv"
    assert source_uri("file://./a.csv") == f"{tmp_path.as_uri()}/a.csv"


def test_command_starts_the_program(tmp_path: Path) -> None:
    path = WRITERS["jsonl"](tmp_path, TALKS)

    def call(*arguments: Any) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from selfemo_operator.cli.main import main; main()"]
        return subprocess.run(
            [*program, "data", *map(str, arguments)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert call("check", path).stdout.endswith("1 source read, 0 errors, 0 warnings\n")
    assert call("convert", path / "none", "--to", tmp_path / "x").returncode == 2
    assert "--label-map LABEL=NEW,…" in call("convert", "--help").stdout
