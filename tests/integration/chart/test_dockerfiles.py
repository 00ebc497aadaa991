"""The Dockerfiles follow some rules. `make lint-files` asks hadolint itself for all of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfemo_jobs.models.package_files import SMOLLM2_FILE

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "images").glob("*/Dockerfile"))
LABELS = ("title", "description", "licenses", "version", "revision", "created", "base.name")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)


@dataclass(frozen=True)
class Step:
    """One instruction."""

    word: str
    rest: str


def steps(text: str) -> list[Step]:
    """Return the instructions, without comments and with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    instructions = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Step(word.upper(), " ".join(rest.split())) for word, rest in instructions]


def violations(text: str) -> Iterator[str]:
    """Yield the violations of the rules, with hadolint's number if there is one."""
    instructions = steps(text)
    yield from _bases(instructions)
    yield from _last_stage(instructions)
    for step in instructions:
        if step.word == "ADD":
            yield "DL3020 COPY, not ADD"
        if step.word == "MAINTAINER":
            yield "DL4000 a label, not MAINTAINER"
        if step.word in ("CMD", "ENTRYPOINT") and not step.rest.startswith("["):
            yield "DL3025 a JSON list, or signals go to a shell"
        if step.word == "WORKDIR" and not step.rest.startswith("/"):
            yield "DL3000 an absolute WORKDIR"
        if step.word == "RUN":
            yield from _run(step.rest)


def _bases(instructions: list[Step]) -> Iterator[str]:
    defaults = {
        name: value
        for step in instructions
        if step.word == "ARG"
        for name, given, value in [step.rest.partition("=")]
        if given  # `ARG BASE` alone keeps the default of the first one
    }
    stages: set[str] = set()
    for step in instructions:
        if step.word != "FROM":
            continue
        image, *alias = re.split(r"\s+[Aa][Ss]\s+", step.rest)
        image = re.sub(r"\$\{?(\w+)\}?", lambda name: defaults.get(name[1], ""), image)
        name, _, tag = image.rpartition("/")[2].partition(":")
        if image not in stages:
            if not tag and "@sha256:" not in image:
                yield f"DL3006 {name} has no tag"
            if tag == "latest":
                yield f"DL3007 {name} is the latest"
        stages.update(alias)


def _last_stage(instructions: list[Step]) -> Iterator[str]:
    first = max((n for n, step in enumerate(instructions) if step.word == "FROM"), default=0)
    users = [step.rest for step in instructions[first:] if step.word == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1]):
        yield "DL3002 the last USER must be a number that is not root's"
    labels = " ".join(step.rest for step in instructions[first:] if step.word == "LABEL")
    for label in LABELS:
        if f"org.opencontainers.image.{label}=" not in labels:
            yield f"DL3048 no label {label}"
    if [step.rest for step in instructions[first:] if step.word == "RUN"] != ["selfemo --version"]:
        yield "the image's user does not try the command"


#: Patterns that no command of a RUN may match, with the violation.
_NEVER = (
    (r"^(sudo|ssh|vim|shutdown|service|ps|free|top|kill)\b", "DL3001 useless in a container"),
    (r"^cd\b", "DL3003 WORKDIR, not cd"),
    (r"\bapt-get (dist-)?upgrade\b", "DL3005 no upgrade: take a newer base"),
    (r"^apt\s", "DL3027 apt-get, not apt"),
    (r"(?<!uv )\bpip3? install\b(?!.* --no-cache-dir\b)", "DL3042 pip without --no-cache-dir"),
    (r"\bpip3? install\b(?!.*(--require-hashes| \.$))", "DL3013 pip without a version and hashes"),
    (r"\bpip3? install\b(?!.*(--only-binary :all:| \.$))", "pip runs code of the package index"),
    (r"\buv sync\b(?!.* --locked\b)", "uv sync without --locked"),
)
#: Patterns that a RUN with `apt-get install` must match, with the violation.
_APT = (
    (r"apt-get install [^&]*(-y|--yes)\b", "DL3014 apt-get install without -y"),
    (r"--no-install-recommends\b", "DL3015 apt-get install with recommended packages"),
    (r"rm -rf /var/lib/apt/lists/\*", "DL3009 the lists of apt are not removed"),
    (r"apt-get update\b", "apt-get install without update in the same RUN"),
)


def _run(command: str) -> Iterator[str]:
    if re.search(r"[^|]\|[^|]", command) and "pipefail" not in command:
        yield "DL4006 a pipe without pipefail"
    for part in re.split(r"&&|;|\|\|", command):
        yield from (rule for pattern, rule in _NEVER if re.search(pattern, part.strip()))
    if "apt-get install" in command:
        yield from (rule for pattern, rule in _APT if not re.search(pattern, command))
    elif "apt-get update" in command:
        yield "apt-get update on its own is cached forever"


@every_file
def test_follows_the_rules(path: Path) -> None:
    assert list(violations(path.read_text())) == []


_GOOD = (ROOT / "images" / "operator" / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (":3.12-slim-bookworm", "", "DL3006"),
        (":3.12-slim-bookworm", ":latest", "DL3007"),
        ("USER 65532:65532", "", "DL3002"),
        ("USER 65532:65532", "USER selfemo", "DL3002"),
        ("USER 65532:65532", "USER 0", "DL3002"),
        ("COPY crds crds", "ADD crds crds", "DL3020"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ('ENTRYPOINT ["python", "-m", "selfemo_operator"]', "ENTRYPOINT python", "DL3025"),
        ("COPY jobs jobs", "RUN cat x | sh", "DL4006"),
        ("COPY jobs jobs", "RUN cd /tmp && ls", "DL3003"),
        ("COPY jobs jobs", "RUN pip install uv", "DL3042"),
        ("COPY jobs jobs", "RUN pip install --no-cache-dir uv==0.13.9", "DL3013"),
        ("--only-binary :all: ", "", "code of the package index"),
        ("COPY jobs jobs", "RUN apt-get update && apt-get install -y vim", "DL3015"),
        ("COPY jobs jobs", "RUN apt-get update", "on its own"),
        ("--locked ", "", "--locked"),
        ("image.licenses", "image.license", "DL3048 no label licenses"),
        ("image.base.name", "image.base", "DL3048 no label base.name"),
        ("RUN selfemo --version", "", "does not try the command"),
    ],
)
def test_a_violation_is_found(old: str, new: str, rule: str) -> None:
    assert _GOOD.count(old) >= 1
    assert any(rule in violation for violation in violations(_GOOD.replace(old, new)))


def test_the_image_of_the_operator_has_no_torch() -> None:
    extras = re.findall(r"--extra (\S+)", (ROOT / "images" / "operator" / "Dockerfile").read_text())
    assert extras == ["operator"]


@every_file
def test_copied_files_are_in_the_build_context(path: Path) -> None:
    ignored = (path.parent / "Dockerfile.dockerignore").read_text().split("\n")
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"  # only named files are in the build context
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for step in steps(path.read_text()):
        if step.word == "COPY" and not step.rest.startswith("--from"):
            copied.update(step.rest.split()[:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def pins(path: str) -> str:
    """Return the lines of a requirements file, without comments and with continued lines joined."""
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    return "\n".join(" ".join(line.split()) for line in lines if not line.startswith("#"))


def test_uv_is_the_same_wherever_it_is_installed() -> None:
    pin = r"uv==\d+\.\d+\.\d+( --hash=sha256:[0-9a-f]{64}){3}"
    assert re.fullmatch(pin, pins("images/uv-requirements.txt"))
    for path in (*FILES, ROOT / "tools" / "setup"):
        assert re.search(r"--require-hashes \\\n +-r \S*uv-requirements\.txt", path.read_text())


def test_the_image_of_the_jobs_has_the_model_of_the_package() -> None:
    assert pins("images/jobs/smollm2-requirements.txt") == SMOLLM2_FILE.pinned
    assert "-r smollm2-requirements.txt" in (ROOT / "images" / "jobs" / "Dockerfile").read_text()
