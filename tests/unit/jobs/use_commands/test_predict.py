"""`selfemo predict` around its model: outputs, options, errors, resumption, kills."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.dialogue_files import WRITERS, dialogue, write_lines
from tests.support.terminal_screen import Screen
from tests.unit.jobs.use_commands.fake_models import (
    LABELS,
    FakePredictor,
    model_folder,
    use_fake_predictor,
)

from selfemo_api.spec import Context
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.use_commands import prediction_run
from selfemo_jobs.use_commands.__main__ import main
from selfemo_jobs.use_commands.prediction_inputs import InputDialogue
from selfemo_jobs.use_commands.prediction_run import target_turns

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).resolve().parents[4]
TALKS = [
    dialogue(f"d{i}", *((f"S{j % 2}", f"Text {i} {j}") for j in range(i % 4 + 1))) for i in range(9)
]
TURNS = sum(len(talk.turns) for talk in TALKS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> type[FakePredictor]:
    monkeypatch.setattr(prediction_run.predict_to_stream, "__kwdefaults__", {"part_turns": 4})
    defaults = {**(prediction_run.predict_to_file.__kwdefaults__ or {}), "part_turns": 4}
    monkeypatch.setattr(prediction_run.predict_to_file, "__kwdefaults__", defaults)
    return use_fake_predictor(monkeypatch)


@pytest.fixture
def run(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    predictor: type[FakePredictor],
) -> Run:
    """Run `selfemo predict` with the model, and return its exit code and output."""
    monkeypatch.setenv("SELFEMO_DATA", "")

    def call(*words: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["predict", str(model), *map(str, words)])
        output = capsysbinary.readouterr()
        return int(code), output.out.decode(), output.err.decode()

    return call


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    return WRITERS["jsonl"](tmp_path, TALKS)


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class TestOutput:
    def test_each_turn_has_a_row_in_order(self, run: Run, talks: Path) -> None:
        code, out, err = run(talks, "-o", "jsonl")
        assert code == 0
        assert [
            (row["dialogue"], row["turn"], row["speaker"], row["text"]) for row in rows_of(out)
        ] == [
            (talk.id, i, turn.speaker, turn.text)
            for talk in TALKS
            for i, turn in enumerate(talk.turns)
        ]
        for row in rows_of(out):
            assert list(row["probabilities"]) == LABELS
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-8)
            assert row["labels"] == [max(LABELS, key=row["probabilities"].get)]
        assert err.startswith(f"{TURNS} turns from 9 dialogues in ")
        assert "; the model was loaded in 1.0 s\n" in err

    def test_formats_agree(self, run: Run, talks: Path, tmp_path: Path) -> None:
        _, lines, _ = run(talks, "-o", "jsonl")
        _, document, _ = run(talks, "-o", "json")
        _, table, _ = run(talks, "-o", "csv")
        assert run(talks, "--to", tmp_path / "out.parquet")[0] == 0
        expected = rows_of(lines)
        assert json.loads(document) == {"labels": LABELS, "predictions": expected}
        flat = [
            {**row, **{f"p_{k}": p for k, p in row["probabilities"].items()}} for row in expected
        ]
        for row in flat:
            del row["probabilities"]
        assert pq.read_table(tmp_path / "out.parquet").to_pylist() == flat
        texts = [{k: v[0] if k == "labels" else str(v) for k, v in row.items()} for row in flat]
        assert list(csv.DictReader(io.StringIO(table))) == texts

    @pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "table", "csv.gz", "parquet"])
    def test_file_is_what_is_printed(
        self, kind: str, run: Run, talks: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / f"out.{kind}"
        words = ("-o", "table") if kind == "table" else ()
        assert run(talks, *words, "--to", path)[:2] == (0, "")
        data = path.read_bytes()
        if kind != "parquet":
            printed = run(talks, "-o", kind.removesuffix(".gz"))[1]
            assert (gzip.decompress(data) if kind.endswith(".gz") else data).decode() == printed
        assert run(talks, *words, "--to", path)[0] == 0
        assert path.read_bytes() == data  # also after a second run
        assert sorted(p.name for p in tmp_path.iterdir()) == ["d.jsonl", "model", f"out.{kind}"]

    def test_output_is_input_of_other_commands(self, run: Run, talks: Path, tmp_path: Path) -> None:
        from tests.support.dialogue_files import read

        from selfemo_jobs.datasets.dialogue import Dialogue

        labels = [row["labels"] for row in rows_of(run(talks, "-o", "jsonl")[1])]
        for name in ("out.csv", "out.jsonl", "out.parquet"):
            assert run(talks, "--to", tmp_path / name)[0] == 0
            dialogues = read(tmp_path / name, LABELS).dialogues
            assert [list(turn.labels) for talk in dialogues for turn in talk.turns] == labels
            bare = [
                Dialogue(d.id, tuple(Utterance(t.speaker, t.text) for t in d.turns))
                for d in dialogues
            ]
            assert bare == TALKS

    def test_no_probabilities(self, run: Run, talks: Path) -> None:
        _, out, _ = run(talks, "-o", "jsonl", "--no-probabilities")
        assert all(
            list(row) == ["dialogue", "turn", "speaker", "text", "labels"] for row in rows_of(out)
        )
        _, out, _ = run(talks, "--no-probabilities")
        assert out.splitlines()[0].split() == ["dialogue", "turn", "speaker", "labels", "text"]

    def test_texts_and_standard_input(self, run: Run) -> None:
        _, texts, _ = run("--text", "We won!", "--text", "At last", "-o", "jsonl")
        _, piped, _ = run("-o", "jsonl", stdin=b"We won!\nAt last\n")
        assert texts == piped and len(rows_of(texts)) == 2

    def test_several_files_before_and_after_options(self, run: Run, tmp_path: Path) -> None:
        files = []
        for name in "abc":
            files.append(tmp_path / f"{name}.txt")
            files[-1].write_text("Hi\n")
        _, out, _ = run(files[0], "-o", "jsonl", files[1], "-q", files[2])
        assert [row["dialogue"] for row in rows_of(out)] == ["a.txt:1", "b.txt:1", "c.txt:1"]

    def test_context_of_the_model_and_of_the_option(self, run: Run, talks: Path) -> None:
        outputs = [
            run(talks, "-o", "jsonl", *words)[1]
            for words in ((), ("--context", "0"), ("--context", "2"))
        ]
        assert outputs[0] == outputs[2] != outputs[1]

    def test_quiet(self, run: Run, talks: Path) -> None:
        assert run(talks, "-q")[2] == ""

    def test_warnings_of_the_input(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "t.txt"
        path.write_text("I?m h\x1b[31mere\n")
        code, out, err = run(path)
        assert code == 0
        assert f"warning: {path}: 1 question mark within a word" in err
        assert "\x1b" not in out + err

    def test_long_dialogues_are_predicted_in_parts(
        self, run: Run, predictor: type[FakePredictor], tmp_path: Path
    ) -> None:
        path = tmp_path / "t.txt"
        path.write_text("".join(f"Text {i}\n" for i in range(10)))
        _, out, _ = run(path, "-o", "jsonl")
        assert predictor.calls == 3
        prediction_run.predict_to_stream.__kwdefaults__["part_turns"] = 100
        assert run(path, "-o", "jsonl")[1] == out


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("-o", "parquet"), "-o parquet needs --to FILE: it cannot be printed"),
            (
                ("--to", "out.txt"),
                "--to out.txt: specify the format with -o (table, json, jsonl, csv, parquet)",
            ),
            (
                ("--to", "out.parquet.gz"),
                "--to out.parquet.gz: specify the format with -o (table, ",
            ),
            (
                ("--to", "out.gz", "-o", "parquet"),
                "--to out.gz: Parquet files are already compressed",
            ),
            (("--to", "none/out.csv"), "--to none/out.csv: the folder none does not exist"),
            (("--to", "s3://b/out.csv"), "--to s3://b/out.csv: must be a file on this machine"),
            (("--batch-size", "0"), "--batch-size 0: must be 1 or more"),
            (
                ("--engine", "VLLM", "--device", "cpu"),
                "--device is an option of the Transformers en",
            ),
            (("--context", "65"), "--context 65: must be from 0 to 64"),
            (("--text", "Hi"), "specify either --text or INPUT, not both"),
            (("--labels", "a,b"), "{model} has its own labels (joy, sadness, anger)"),
            (("-o", "xml"), "argument --output/-o: invalid choice: 'xml'"),
            (("--outputs", "json"), "no such option: --outputs: did you mean --output?"),
        ],
    )
    def test_options(
        self,
        words: Sequence[str],
        message: str,
        run: Run,
        talks: Path,
        model: Path,
        predictor: type[FakePredictor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(talks.parent)
        code, out, err = run(talks, *words)
        assert (code, out) == (2, "")
        assert err.startswith(f"selfemo predict: {message.format(model=model.as_uri())}")
        assert err.count("\n") == 1
        assert predictor.loads == 0

    def test_output_that_is_an_input_or_a_folder(self, run: Run, talks: Path) -> None:
        before = talks.read_bytes()
        assert f"--to {talks} is also an input" in run(talks, "--to", talks)[2]
        assert f"--to {talks.parent} is a folder" in run(talks, "--to", talks.parent)[2]
        assert talks.read_bytes() == before

    def test_row_of_the_input(self, run: Run, tmp_path: Path, predictor: Any) -> None:
        path = write_lines(tmp_path / "t.jsonl", [{"text": "Hi"}, {"text": ""}])
        code, out, err = run(path, "-o", "jsonl")
        assert (code, out) == (2, "")
        assert err == f"selfemo predict: {path} line 2: `text` is empty\n"
        assert predictor.loads == 0

    def test_json_error(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        # an error after the first part: nothing of the document was printed
        path.write_text("text\n" + "Hi\n" * 9)
        code, out, _ = run(path, "-o", "json", "--text", "Hi")
        assert code == 2
        assert json.loads(out)["kind"] == "BadInput"

    def test_json_error_after_the_first_part(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("selfemo_jobs.datasets.dialogue_stream.WHOLE_BYTES", 0)
        path = tmp_path / "t.csv"
        path.write_text("text\n" + "Hi\n" * 9 + '""\n')
        code, out, _ = run(path, "-o", "json")
        assert code == 2
        assert json.loads(out)["error"] == f"{path} line 11: `text` is empty"
        code, out, err = run(path, "-o", "jsonl")
        assert (code, len(rows_of(out))) == (2, 8)
        assert err == f"selfemo predict: {path} line 11: `text` is empty\n"

    def test_missing_model(self, tmp_path: Path, capsys: Any) -> None:
        assert main(["predict", str(tmp_path / "none"), "--text", "Hi"]) == 2
        assert "none does not exist" in capsys.readouterr().err


class TestResumption:
    @pytest.fixture
    def interrupt(
        self, monkeypatch: pytest.MonkeyPatch, predictor: type[FakePredictor]
    ) -> Callable[[int], None]:
        """Return a function that sets after how many parts the next command is interrupted."""
        call = predictor.__call__

        def after(parts: int) -> None:
            left = iter(range(parts))

            def limited(self: FakePredictor, targets: Any) -> Any:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return call(self, targets)

            monkeypatch.setattr(predictor, "__call__", limited)

        return after

    def test_continues_after_the_parts_that_are_there(
        self, run: Run, talks: Path, tmp_path: Path, interrupt: Any, predictor: Any
    ) -> None:
        whole = run(talks, "-o", "csv")[1]
        path = tmp_path / "out.csv"
        for parts in (0, 2, 1):
            interrupt(parts)
            code, out, err = run(talks, "--to", path)
            assert (code, out, err) == (130, "", "selfemo predict: interrupted\n")
            assert not path.exists()
        predictor.calls = 0
        interrupt(99)
        code, _, err = run(talks, "--to", path)
        assert code == 0
        assert predictor.calls == (TURNS - 12 + 3) // 4
        assert path.read_text() == whole
        assert f"{path}: {TURNS} turns from 9 dialogues" in err
        assert "; 12 turns were predicted by the interrupted command" in err

    @pytest.mark.parametrize(
        ("words", "names"),
        [
            (("--no-probabilities",), "choice of probabilities"),
            (("--context", "1"), "context"),
            (("--batch-size", "3"), "arguments of the engine"),
        ],
    )
    def test_another_command_is_refused(
        self,
        words: Sequence[str],
        names: str,
        run: Run,
        talks: Path,
        tmp_path: Path,
        interrupt: Any,
    ) -> None:
        path = tmp_path / "out.csv"
        interrupt(1)
        assert run(talks, "--to", path)[0] == 130
        interrupt(99)
        code, _, err = run(talks, "--to", path, *words)
        assert code == 2
        expected = f"out.csv.partial was written by an interrupted command with different {names}: "
        assert f"{expected}run that command again" in err
        assert run(talks, "--to", path)[0] == 0

    def test_another_model_or_input_is_refused(
        self, run: Run, talks: Path, tmp_path: Path, model: Path, interrupt: Any
    ) -> None:
        path = tmp_path / "out.csv"
        interrupt(1)
        assert run(talks, "--to", path)[0] == 130
        (model / "config.json").write_text('{"model_type": "qwen3", "x": 1}')
        talks.write_text(talks.read_text() + "\n")
        code, _, err = run(talks, "--to", path)
        assert code == 2
        assert "with different input and model: run that command again" in err

    def test_scores_in_the_description_are_not_part_of_the_model(
        self, run: Run, talks: Path, tmp_path: Path, model: Path, interrupt: Any
    ) -> None:
        path = tmp_path / "out.csv"
        interrupt(1)
        assert run(talks, "--to", path)[0] == 130
        interrupt(99)
        description = json.loads((model / "selfemo.json").read_text())
        (model / "selfemo.json").write_text(json.dumps({**description, "license": "mit"}))
        assert run(talks, "--to", path)[0] == 0

    def test_another_format_continues(
        self, run: Run, talks: Path, tmp_path: Path, interrupt: Any
    ) -> None:
        whole = run(talks, "-o", "jsonl")[1]
        path = tmp_path / "out"
        interrupt(2)
        assert run(talks, "-o", "csv", "--to", path)[0] == 130
        interrupt(99)
        assert run(talks, "-o", "jsonl", "--to", path)[0] == 0
        assert path.read_text() == whole

    def test_a_complete_log_needs_no_model(
        self, run: Run, talks: Path, tmp_path: Path, predictor: Any, monkeypatch: Any
    ) -> None:
        whole = run(talks, "-o", "csv")[1]
        path = tmp_path / "out.csv"

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(prediction_run, "open_writer", fail)
            assert run(talks, "--to", path)[0] == 130
        predictor.loads = 0
        assert run(talks, "--to", path)[0] == 0
        assert predictor.loads == 0
        assert path.read_text() == whole


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
sys.path.insert(0, {root!r})
from tests.unit.jobs.use_commands.fake_models import use_fake_predictor
from selfemo_jobs.use_commands import prediction_run
from selfemo_jobs.use_commands.__main__ import main

use_fake_predictor(pytest.MonkeyPatch())
for function in (prediction_run.predict_to_stream, prediction_run.predict_to_file):
    function.__kwdefaults__["part_turns"] = 9
folder, words = Path(sys.argv[1]), sys.argv[2:]
output = Path(words[words.index("--to") + 1])
pytest.importorskip("pyarrow.parquet")

def child(kill_at):
    # run the command, killed at some event of the files
    pid = os.fork()
    if pid == 0:
        events = 0
        def hook(name, arguments):
            nonlocal events
            if not name.startswith(("open", "os.", "fcntl.", "shutil.")):
                return
            if str(output.parent) not in str(arguments) and name != "fcntl.flock":
                return
            events += 1
            if events == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        def counted(function):
            def call(*arguments):
                hook("os.fsync", str(output.parent))
                result = function(*arguments)
                hook("os.fsync", str(output.parent))
                return result
            return call
        if kill_at is not None:
            os.fsync = counted(os.fsync)
            sys.addaudithook(hook)
        os._exit(main(words))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert child(None) == 0
whole = output.read_bytes()
output.unlink()
kill_at = 0
while True:
    kill_at += 1
    code = child(kill_at)
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    if output.exists():
        assert output.read_bytes() == whole
    assert child(None) == 0
    assert output.read_bytes() == whole
    left = [p.name for p in output.parent.iterdir() if not p.name.startswith(".selfemo-")]
    assert left == [output.name], left
    output.unlink()
print(kill_at)
"""


@pytest.mark.parametrize("name", ["out.csv", pytest.param("out.parquet", marks=pytest.mark.slow)])
def test_killed_at_each_write_it_finishes_with_equal_bytes(
    name: str, talks: Path, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    words = ["predict", str(model), str(talks), "--to", str(folder / name), "-q"]
    program = KILLED.format(root=str(ROOT))
    command = [sys.executable, "-c", program, str(folder), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.split()[-1]) > 15


def test_end_of_a_pipe(talks: Path, model: Path) -> None:
    program = (
        KILLED.format(root=str(ROOT)).partition("folder, words")[0] + "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "predict", str(model), str(talks), "-o", "jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in error and "BrokenPipe" not in error
    assert process.returncode != -signal.SIGPIPE


MEASURE = """
import resource, sys
import pytest
sys.path.insert(0, {root!r})
from tests.unit.jobs.use_commands.fake_models import use_fake_predictor
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.use_commands.__main__ import main

dialogue_stream.WHOLE_BYTES = dialogue_stream.HEAD_BYTES = 1 << 16
use_fake_predictor(pytest.MonkeyPatch())
model, small, large, output = sys.argv[1:]
assert main(["predict", model, small, "--to", output, "-q"]) == 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(["predict", model, large, "--to", output, "-q"]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("name", "output"), [("t.jsonl", "out.json.gz"), ("t.txt", "out.parquet")])
def test_memory_does_not_grow_with_the_input(
    name: str, output: str, model: Path, tmp_path: Path
) -> None:
    def write(count: int) -> Path:
        path = tmp_path / f"{count}-{name}"
        texts = (f"{i} " + "word " * 60 for i in range(count))
        if name == "t.txt":
            path.write_text("".join(f"{text}\n" for text in texts))  # one dialogue
            return path
        rows = ({"dialogue": f"d{i // 4}", "text": text} for i, text in enumerate(texts))
        return write_lines(path, list(rows))

    program = MEASURE.format(root=str(ROOT))
    words = [str(model), str(write(15_000)), str(write(40_000)), str(tmp_path / output)]
    command = [sys.executable, "-c", program, *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) < 6_000  # KiB; the further texts alone are 8 MB, and rows take more


def test_terminal(talks: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Ann: I \x1b[31mwon\x9b, " + "at last " * 99 + "\n")
    program = KILLED.format(root=str(ROOT)).partition("folder, words")[0]
    start = [sys.executable, "-c", program + "sys.exit(main(sys.argv[1:]))", "predict", str(model)]
    with Screen([*start, str(path)], columns=90) as screen:
        assert screen.end() == 0
        assert screen.lines[0].split()[:4] == ["dialogue", "turn", "speaker", "labels"]
        assert screen.lines[1].startswith("1         0     Ann")
        assert "I \\x1b[31mwon›, at" in screen.lines[1] and screen.lines[1].endswith("…")
        assert b"\x1b[31m" not in screen.raw
    with Screen([*start, str(talks), "--to", str(tmp_path / "o.csv")], columns=90) as screen:
        assert screen.end() == 0
        text = "".join(screen.lines).replace(" ", "")  # a line may end at a blank
        assert text.startswith(f"{tmp_path / 'o.csv'}:21turnsfrom9dialoguesin")
        assert b"8 turns, " in screen.raw  # the line of the progress
    with Screen(start, columns=90) as screen:
        screen.wait(
            "Enter one turn per line, as `Speaker: text` or plain text. Press Ctrl-D to finish."
        )
        screen.type(b"I won\n\x04")
        assert screen.end() == 0
        assert "1         0     A" in screen.text


@pytest.mark.parametrize(("past", "future"), [(0, 0), (2, 0), (2, 1), (0, 2), (9, 9)])
def test_context_of_each_turn(past: int, future: int) -> None:
    turns = [Utterance("A", f"{i}") for i in range(6)]
    context = Context(past=past, future=future)
    targets = list(
        target_turns([InputDialogue("d", turns), InputDialogue("e", turns[:1])], context)
    )
    assert [(t.dialogue_id, t.utterance) for t in targets] == [
        *(("d", i) for i in range(6)),
        ("e", 0),
    ]
    for i, target in enumerate(targets[:6]):
        assert target.turn is turns[i]
        assert list(target.past) == turns[max(0, i - past) : i]
        assert list(target.future) == turns[i + 1 : i + 1 + future]
    assert targets[6].past == targets[6].future == ()
