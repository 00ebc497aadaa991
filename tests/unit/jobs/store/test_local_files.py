"""Folders that are written whole or not at all, and clear errors (files: ``test_folder.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.local_files import replacing_folder, translated_errors, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_and_replaced_whole(tmp_path: Path) -> None:
    model = tmp_path / "models" / "one"
    for name in ("first", "second"):
        with replacing_folder(model) as new:
            assert names(new) == []
            assert not (model / name).exists()
            (new / name).write_text(name)
        assert names(model) == [name]
    assert names(model.parent) == ["one"]


def test_a_block_that_fails_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    model = tmp_path / "one"
    write_file(model / "old", b"1")
    with pytest.raises(RuntimeError), replacing_folder(model) as new:
        (new / "half").touch()
        raise RuntimeError
    assert names(model) == ["old"]
    assert names(tmp_path) == ["one"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write_file(tmp_path / ".one.selfemo-new" / "half", b"1")
    with replacing_folder(tmp_path / "one") as new:
        (new / "whole").touch()
    assert names(tmp_path) == ["one"]
    assert names(tmp_path / "one") == ["whole"]


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_a_pipe_is_written_and_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    pipe, target, link = (tmp_path / name for name in ("pipe", "target", "link"))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, b"some")
    assert os.read(reader, 10) == b"some"
    os.close(reader)
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


#: Sets a limit that a write exceeds, as on a full disk.
LIMIT = (
    "import resource, signal, sys\n"
    "from pathlib import Path\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
)


def test_a_library_in_rust_that_cannot_write_is_explained(tmp_path: Path) -> None:
    code = (
        "import numpy\n"
        "from safetensors.numpy import save_file\n"
        "from selfemo_jobs.errors import BadInput\n"
        "from selfemo_jobs.store.local_files import translated_errors\n"
        f"path = Path({str(tmp_path)!r}) / 'weights'\n"
        "try:\n"
        "    with translated_errors(path): save_file({'a': numpy.zeros(9999)}, path)\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", LIMIT + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path}/weights: file too large: free space" in done.stdout


def test_an_error_that_quotes_another_one_stays(tmp_path: Path) -> None:
    quoted = BadInput("the tokenizer cannot be read: File too large (os error 27)")
    with pytest.raises(BadInput) as caught, translated_errors(tmp_path):
        raise quoted
    assert caught.value is quoted


def test_a_stale_file_of_another_user_in_a_sticky_folder_stays() -> None:
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.store.local_files import write_file\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "write_file(Path('mine'), b'x')\n"
    )
    with TemporaryDirectory() as made:  # the folders of pytest are for one user alone
        folder = Path(made)
        stale = folder / ".selfemo-00aa00aa00aa00aa.tmp"
        stale.touch()
        os.utime(stale, (1, 1))
        folder.chmod(0o1777)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (folder / "mine").read_bytes() == b"x"


def test_the_folder_of_somebody_else_with_the_ending_new_stays(tmp_path: Path) -> None:
    write_file(tmp_path / "one.new" / "mine", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with replacing_folder(tmp_path / "link") as new:
        (new / "whole").touch()
    assert names(tmp_path / "one.new") == ["mine"]
    assert names(tmp_path / "one") == ["whole"]
    assert (tmp_path / "link").is_symlink()
