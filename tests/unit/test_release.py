"""How a release is made: versions, notes, workflows. `make lint-files` checks their form."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import release
from tools.release import PLACES, ReleaseError, prepare, problems, section, versions, waiting

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"uses: ([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$")

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a release, in a folder of their own."""
    for name in (*PLACES, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "changes").mkdir()
    shutil.copy(ROOT / "changes" / "README.md", tmp_path / "changes")
    return tmp_path


def test_all_places_have_the_version() -> None:
    assert list(problems(ROOT, None)) == []
    assert len(set(versions(ROOT).values())) == 1
    assert section((ROOT / "CHANGELOG.md").read_text(), versions(ROOT)["pyproject.toml"])


def test_another_version_is_a_problem(checkout: Path) -> None:
    for name in PLACES:
        shutil.copy(ROOT / name, checkout / name)
        version = versions(checkout)[name]
        text = (checkout / name).read_text()
        at = re.search(PLACES[name], text)
        assert at is not None
        (checkout / name).write_text(text[: at.start(2)] + "9.9.9" + text[at.end(2) :])
        assert any("9.9.9" in line for line in problems(checkout, None)), name
        assert versions(checkout)[name] != version
        shutil.copy(ROOT / name, checkout / name)
    assert list(problems(checkout, None)) == []


def test_a_release_writes_version_and_notes(checkout: Path) -> None:
    before = (checkout / "CHANGELOG.md").read_text()
    (checkout / "changes" / "+one.added.md").write_text("A new command, **`selfemo sing`**.\n")
    (checkout / "changes" / "+two.fixed.md").write_text("A turn without text is read.\n")
    assert waiting(checkout) == ["+one.added.md", "+two.fixed.md"]
    prepare(checkout, "7.8.9", "2031-02-03")
    assert set(versions(checkout).values()) == {"7.8.9"}
    assert "appVersion: 7.8.9" in (checkout / "helm/selfemo/Chart.yaml").read_text()
    assert "date-released: 2031-02-03" in (checkout / "CITATION.cff").read_text()
    after = (checkout / "CHANGELOG.md").read_text()
    assert "## 7.8.9 (2031-02-03)\n" in after
    notes = section(after, "7.8.9")
    assert notes is not None
    added, fixed = notes.index("### Added"), notes.index("### Fixed")
    assert added < notes.index("- A new command, **`selfemo sing`**.") < fixed
    assert fixed < notes.index("- A turn without text is read.")
    head, _, rest = before.partition("\n## ")
    assert after.startswith(head) and after.endswith(rest)
    assert waiting(checkout) == []
    assert list(problems(checkout, "v7.8.9")) == []

    # what has come since is added to the same section
    (checkout / "changes" / "+three.security.md").write_text("A token is never logged.\n")
    assert any("+three" in line for line in problems(checkout, "v7.8.9"))
    prepare(checkout, "7.8.9", "2031-02-04")
    again = (checkout / "CHANGELOG.md").read_text()
    assert again.count("\n## 7.8.9 ") == 1
    both = section(again, "7.8.9")
    assert both is not None
    assert "- A token is never logged." in both
    assert notes in both
    assert again.endswith(rest)


def test_what_keeps_a_tag_from_being_released(checkout: Path) -> None:
    version = versions(checkout)["pyproject.toml"]
    assert any("a tag is `v`" in line for line in problems(checkout, version))
    (checkout / "CHANGELOG.md").write_text("# Changelog\n")
    assert any("has no section" in line for line in problems(checkout, f"v{version}"))
    with pytest.raises(ReleaseError, match="three numbers"):
        prepare(checkout, "1.0", "2031-02-03")


def test_the_notes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    version = versions(ROOT)["pyproject.toml"]
    assert release.main(["notes", version]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == section((ROOT / "CHANGELOG.md").read_text(), version)
    with pytest.raises(ReleaseError, match="no section"):
        release.main(["notes", "9.9.9"])


def jobs_of(path: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return jobs


def test_there_are_workflows() -> None:
    assert {path.stem for path in WORKFLOWS} == {"test", "docs", "release", "scan"}


@each_workflow
def test_actions_are_pinned_by_digest(path: Path) -> None:
    lines = [line.strip(" -") for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if "uses: ./" not in line and not PINNED.search(line)] == []


def test_an_action_has_one_digest() -> None:
    used: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if match := PINNED.search(line):
                used.setdefault(match[1], set()).add(match[2])
    assert all(len(digests) == 1 for digests in used.values())


@each_workflow
def test_rights_and_time_are_bounded(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert document["permissions"] == {"contents": "read"}
    for name, job in jobs_of(path).items():
        assert "timeout-minutes" in job or "uses" in job, name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


@each_workflow
def test_each_job_runs_a_target_that_anyone_can_run(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    called = set(re.findall(r"\bmake (?:--silent )?([a-z][a-z0-9-]+)", text))
    assert called <= targets
    assert called
    for name, job in jobs_of(path).items():
        for target in job.get("strategy", {}).get("matrix", {}).get("target", []):
            assert target in targets, name


def test_ci_and_the_workflow_run_the_same() -> None:
    (step,) = [
        s for s in jobs_of(ROOT / ".github/workflows/test.yaml")["test"]["steps"] if "run" in s
    ]
    assert step["run"] == ".ci/run"
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_a_release_waits_for_the_tests_and_publishes_no_package() -> None:
    jobs = jobs_of(ROOT / ".github/workflows/release.yaml")
    needs = {name: job.get("needs", []) for name, job in jobs.items()}

    def before(name: str) -> set[str]:
        direct = [needs[name]] if isinstance(needs[name], str) else needs[name]
        return {*direct, *(earlier for other in direct for earlier in before(other))}

    for name in ("packages", "images", "chart", "publish"):
        assert {"check", "test"} <= before(name), name
    text = (ROOT / ".github/workflows/release.yaml").read_text()
    # the name on the public package index belongs to somebody else
    assert not re.search(r"twine|uv publish|pypi-publish", text)


def test_all_images_are_released() -> None:
    jobs = jobs_of(ROOT / ".github/workflows/release.yaml")
    rows = jobs["images"]["strategy"]["matrix"]["include"]
    lines = (ROOT / "images" / "bases").read_text().splitlines()
    images = [line.split()[0] for line in lines if not line.startswith("#")]
    assert [row["image"] for row in rows] == images
    assert rows[0]["platforms"] == "linux/amd64,linux/arm64"


def test_python_versions_of_the_trials_are_those_of_the_package() -> None:
    from tools.try_packages import PYTHONS

    text = (ROOT / "pyproject.toml").read_text()
    stated = re.findall(r"Programming Language :: Python :: (3\.\d+)", text)
    jobs = jobs_of(ROOT / ".github/workflows/test.yaml")
    assert list(PYTHONS) == stated == jobs["packages"]["strategy"]["matrix"]["python"]
