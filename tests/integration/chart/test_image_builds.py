"""The scripts that build images: base images by digest, SBOM and provenance."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DIGEST = f"sha256:{'ab' * 32}"
IMAGES = ("operator", "jobs", "jobs-cpu")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the scripts, and with a `docker` that records its arguments."""
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "  info) ;;\n"
        '  *"imagetools inspect"*) echo "$ANSWER" ;;\n'
        '  *) echo "$@" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    return tmp_path


def script(
    checkout: Path, name: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "images" / name), *arguments],
        env={"PATH": f"{checkout / 'bin'}:/usr/bin:/bin", "ANSWER": DIGEST, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def bases(checkout: Path) -> dict[str, list[str]]:
    lines = (checkout / "images" / "bases").read_text().splitlines()
    return {name: rest for name, *rest in map(str.split, lines) if name != "#"}


def test_the_bases_are_those_of_the_dockerfiles() -> None:
    for name in ("operator", "jobs"):
        text = (ROOT / "images" / name / "Dockerfile").read_text()
        base = re.search(r"^ARG BASE=(.+)$", text, re.MULTILINE)
        assert base is not None
        assert bases(ROOT)[name][0] == base[1]
    assert tuple(bases(ROOT)) == IMAGES
    for _, *digest in bases(ROOT).values():
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", d) for d in digest)


@pytest.mark.parametrize("image", IMAGES)
def test_a_pinned_base_is_used_by_its_digest(checkout: Path, image: str) -> None:
    unpinned = script(checkout, "build", image)
    base = bases(checkout)[image][0]
    assert unpinned.returncode == 0
    assert f"--build-arg BASE={base} " in unpinned.stdout
    assert f"{base} is pulled by its tag" in unpinned.stderr
    assert script(checkout, "build", image, REQUIRE_DIGESTS="1").returncode == 1
    pinned = script(checkout, "pin")
    assert pinned.returncode == 0, pinned.stderr
    assert bases(checkout) == {name: [b[0], DIGEST] for name, b in bases(ROOT).items()}
    built = script(checkout, "build", image, REQUIRE_DIGESTS="1")
    assert (built.returncode, built.stderr) == (0, "")
    assert f"--build-arg BASE={base}@{DIGEST} " in built.stdout
    assert script(checkout, "pin").returncode == 0  # again, with the digests there
    assert bases(checkout)[image] == [base, DIGEST]


@pytest.mark.parametrize("answer", ["", "not found", "sha256:12", f"{DIGEST}\n{DIGEST}"])
def test_nothing_but_a_digest_is_written(checkout: Path, answer: str) -> None:
    before = (checkout / "images" / "bases").read_text()
    outcome = script(checkout, "pin", ANSWER=answer)
    assert outcome.returncode == 1
    assert "the registry returned no digest" in outcome.stderr
    assert (checkout / "images" / "bases").read_text() == before


def test_another_base_may_be_named(checkout: Path) -> None:
    built = script(checkout, "build", "operator", BASE="localhost/python-base:bookworm")
    assert "--build-arg BASE=localhost/python-base:bookworm " in built.stdout
    assert built.stderr == ""


def test_attestations_are_built_and_pushed(checkout: Path) -> None:
    variables = {"ATTEST": "1", "BASE": f"python@{DIGEST}", "REGISTRY": "registry.example.org/t"}
    built = script(checkout, "build", "operator", **variables)
    assert built.stdout.startswith(
        "buildx build --sbom=true --provenance=mode=max "
        "--output type=registry,rewrite-timestamp=true "
    )
    assert "--tag registry.example.org/t/selfemo-operator:" in built.stdout
    refused = script(checkout, "build", "operator", TOOL="buildah", **variables)
    assert refused.returncode == 1
    assert "requires docker with buildx" in refused.stderr


@pytest.mark.parametrize("tool", ["docker", "podman", "buildah"])
def test_the_date_is_that_of_the_commit(checkout: Path, tool: str) -> None:
    (checkout / "bin" / tool).write_bytes((checkout / "bin" / "docker").read_bytes())
    (checkout / "bin" / tool).chmod(0o755)
    variables = {"TOOL": tool, "SOURCE_DATE_EPOCH": "86400"}
    built = script(checkout, "build", "operator", **variables)
    assert "--build-arg CREATED=1970-01-02T00:00:00Z " in built.stdout
    date = "--build-arg SOURCE_DATE_EPOCH=86400 " if tool == "docker" else "--timestamp 86400 "
    assert date in built.stdout
    assert " --tag localhost/selfemo-operator:" in built.stdout


@pytest.mark.parametrize("tool", ["docker", "podman", "buildah"])
def test_images_of_several_processors(checkout: Path, tool: str) -> None:
    (checkout / "bin" / tool).write_bytes((checkout / "bin" / "docker").read_bytes())
    (checkout / "bin" / tool).chmod(0o755)
    both = "linux/amd64,linux/arm64"
    built = script(checkout, "build", "operator", TOOL=tool, PLATFORMS=both)
    assert f"--platform {both} " in built.stdout
    if tool == "docker":
        assert built.stdout.startswith("buildx build --output type=registry,")
        assert " --tag localhost/selfemo-operator:" in built.stdout
    else:  # an index has no tag of its own
        assert " --manifest localhost/selfemo-operator:" in built.stdout
        assert " --tag " not in built.stdout
    one = script(checkout, "build", "operator", TOOL=tool, PLATFORMS="linux/arm64")
    assert " --tag localhost/selfemo-operator:" in one.stdout


def test_the_sbom_has_the_packages_of_each_image(tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(Path.home() / ".cache/selfemo/uv/bin/uv")
    if not os.access(uv, os.X_OK):
        pytest.skip("no uv: make setup installs it")
    command = [str(ROOT / "images" / "sbom"), str(tmp_path)]
    subprocess.run(command, env={**os.environ, "UV": uv, "UV_OFFLINE": "1"}, check=True)
    packages = {}
    for name in IMAGES:
        content = json.loads((tmp_path / f"selfemo-{name}.cdx.json").read_text())
        packages[name] = {c["name"]: c["version"] for c in content["components"]}
        assert all(packages[name].values())
    assert {"kopf", "kubernetes"} <= set(packages["operator"])
    assert not {"torch", "vllm"} & set(packages["operator"])
    assert {"torch", "vllm", "ray"} <= set(packages["jobs"])
    for name in ("operator", "jobs"):
        text = (ROOT / "images" / name / "Dockerfile").read_text().replace("${ENGINE}", "vllm")
        installed = re.findall(r'--extra "?([\w-]+)', text)
        line = re.search(
            rf"^export_packages {name} (.+)$", (ROOT / "images/sbom").read_text(), re.M
        )
        assert line is not None
        assert line[1].split() == installed


def test_no_text_installs_the_name_of_the_project_from_an_index() -> None:
    """The name on the public index belongs to somebody else."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    pattern = re.compile(
        r"\b(pip3?|uv pip|uv tool|pipx|uv add|uvx|uv)\s+(install|add|run|inject)?\b[^\n`]*?"
        r"(?<![\w./-])selfemo(?=$|[\[\s=<>\"'`@,])(?![-./])"
    )
    names = [n for n in tracked if n.endswith((".md", ".ipynb", ".py", ".yaml", ".txt", ".toml"))]
    names += ["Makefile", "images/operator/Dockerfile", "images/jobs/Dockerfile", "tools/setup"]
    found = []
    for name in names:
        text = (ROOT / name).read_text(errors="replace") if (ROOT / name).is_file() else ""
        for match in re.finditer(r"(pip3?|pipx|uv tool|uv add|uvx)[^\n]*", text):
            if pattern.search(match[0]):
                found.append(f"{name}: {match[0][:80]}")
    assert [text for text in found if "test_image_builds" not in text] == []
    assert pattern.search("pip install selfemo[jobs]")
    assert pattern.search("uv tool install 'selfemo'")
    assert not pattern.search("pip install ./selfemo-0.1.0-py3-none-any.whl[jobs]")
