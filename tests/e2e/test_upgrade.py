"""`helm upgrade` from an earlier commit with a running evolution, and `helm rollback`.

Both versions are whole: chart, CRD, operator, and the code of the stages. Only the packages of
others that the stages use are today's, because a second environment would have gigabytes.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_api.schema.crd import build_crd
from selfemo_operator.controller.objects import names
from tests.e2e.conftest import ROOT, Json, Kubectl, pod_template, wait_status
from tests.e2e.test_chart import build_operator, crd_in_use, denied
from tests.e2e.test_ten_lines import STAGES, manifests
from tests.integration.chart.helm import CHART, KUBERNETES, Helm, HelmError
from tests.support.cluster import S3, Cluster, binaries, settings
from tests.support.cluster.locks import locked

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.xdist_group("pods-2"),
]

#: The commit from which is upgraded: the last one before the chart had defaults of stage pods.
EARLIER = "994e158b9395cec9179bf529b23523890fd25354"
REGISTRY = "localhost/earlier"
#: The packages of a wheel, and the folders of the checkout that have them.
PACKAGES = {
    "selfemo_api": "crds",
    "selfemo_operator": "operator",
    "selfemo_jobs": "jobs",
    "selfemo": "jobs",
}
CODE = "/opt/earlier"
VERSION = ("--kube-version", KUBERNETES)
Run = Callable[..., str]


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier checkout, from the history of this one."""
    git = ("git", "-C", str(ROOT))
    if subprocess.run([*git, "cat-file", "-e", f"{EARLIER}^{{commit}}"], check=False).returncode:
        pytest.skip(f"the history lacks the commit {EARLIER[:7]}: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("earlier")
    archive = folder / "archive.tar"
    subprocess.run([*git, "archive", f"--output={archive}", EARLIER], check=True)
    checkout = folder / "checkout"
    with tarfile.open(archive) as tar:
        tar.extractall(checkout, filter="data")
    return checkout


@pytest.fixture(scope="session")
def earlier_images(
    earlier: Path, node_image: str, python_environment: Path, node_cluster: Cluster
) -> Json:
    """The values with the images of the earlier version, which are on the node."""
    operator = build_operator(earlier, REGISTRY, EARLIER)
    stages = earlier_image()
    with locked(binaries.cache_folder() / ".earlier-image.lock"):
        build_stages(earlier, node_cluster, stages)
    for image in (operator, stages):
        node_cluster.import_image(image)
    return {"image": {"registry": REGISTRY}, "jobs": {"image": image_value(stages)}}


def earlier_image() -> str:
    """Return the name of the image of the earlier version's stages."""
    return f"{REGISTRY}/selfemo-jobs:e2e"


def image_value(image: str) -> Json:
    """Return an image as the chart's value."""
    place, _, tag = image.rpartition(":")
    registry, _, repository = place.rpartition("/")
    return {"registry": registry, "repository": repository, "tag": tag}


def build_stages(checkout: Path, cluster: Cluster, image: str) -> None:
    """Build the image of the stages: that of the tests, in which the checkout's code comes first.

    Parameters
    ----------
    checkout
        The checkout whose code the stages run.
    cluster
        The cluster, which has an archive of the image of the tests.
    image
        The name of the image in buildah's store.
    """
    archive = cluster.folder / "images" / "selfemo-jobs-base-e2e.tar"
    if not archive.is_file():
        pytest.skip(f"this cluster has no archive of the image: {archive}")
    code = checkout.parent / "code"
    shutil.rmtree(code, ignore_errors=True)
    for package, folder in PACKAGES.items():
        shutil.copytree(checkout / folder / package, code / package)
    container = buildah("from", f"docker-archive:{archive}")
    try:
        buildah("copy", container, str(code), CODE)
        buildah("config", "--env", f"PYTHONPATH={CODE}", container)
        buildah("commit", "--quiet", container, image)
    finally:
        buildah("rm", container)


def buildah(*arguments: str) -> str:
    """Run buildah with the store of the operator's image, and return its output."""
    environment = {**os.environ, "STORAGE_DRIVER": "vfs"}
    result = subprocess.run(
        ["buildah", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def release(helm4: Helm, node_cluster: Cluster, namespace: str, kubectl: Kubectl) -> Iterator[Run]:
    """Helm for a release in the namespace. At the end, the CRD is today's again."""

    def run(command: str, *arguments: str) -> str:
        place = ["--namespace", namespace]
        kubeconfig = node_cluster.kubeconfig
        return helm4.run(command, "selfemo", *arguments, *place, kubeconfig=kubeconfig, timeout=900)

    with crd_in_use(node_cluster, alone=True):
        yield run
        options = ("--server-side", "--force-conflicts", "--field-manager=helm")
        crd = run("template", str(CHART), "--show-only", "templates/crd.yaml", *VERSION)
        kubectl("apply", *options, "--filename", "-", stdin=crd)
        run("uninstall", "--ignore-not-found", "--wait")


class World:
    """What an upgrade must not lose: an evolution with its Jobs, and the CRD.

    Parameters
    ----------
    kubectl
        kubectl in the namespace.
    name
        The name of the evolution.
    """

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl, self._name = kubectl, name

    def start(self, document: Json) -> None:
        """Create the evolution; its stages have the image of the chart."""
        template = pod_template()
        del template["image"]
        document["metadata"]["name"] = self._name
        document["spec"]["podTemplate"] = [{"template": template}]
        self._kubectl.apply(document)

    @property
    def spec(self) -> Json:
        spec: Json = self._kubectl.get(f"emo/{self._name}")["spec"]
        return spec

    @property
    def history(self) -> list[Json]:
        history: list[Json] = self._kubectl.get(f"emo/{self._name}")["status"]["history"]
        return history

    @property
    def _items(self) -> list[Json]:
        selector = f"{names.LABEL_EVOLUTION}={self._name}"
        jobs = self._kubectl("get", "jobs", "--selector", selector, "--output", "json")
        items: list[Json] = json.loads(jobs)["items"]
        return sorted(items, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    @property
    def jobs(self) -> dict[str, str]:
        """The uid of each Job by its name."""
        return {job["metadata"]["name"]: job["metadata"]["uid"] for job in self._items}

    @property
    def images(self) -> list[str]:
        """The images of the Jobs, oldest first, each once in a row."""
        pods = (job["spec"]["template"]["spec"] for job in self._items)
        return [image for image, _ in itertools.groupby(p["containers"][0]["image"] for p in pods)]

    def wait(self, check: Callable[[Json], Any], what: str) -> Json:
        return wait_status(self._kubectl, check, what, 900, name=self._name)

    def wait_for_generation_1(self) -> None:
        self.wait(lambda s: s.get("generation") == 1, "generation 1")

    def check_end(self, s3: S3, record: list[Json]) -> None:
        """Wait for the end, and check that everything was done once and is there.

        Parameters
        ----------
        s3
            The storage of the run.
        record
            The history of the time before the version changed.
        """
        status = self.wait(lambda s: s.get("completionTime"), "the end")
        assert status["phase"] == "Succeeded", self._kubectl("describe", "emo", self._name)
        assert [r["generation"] for r in status["history"]] == [0, 1]
        assert [r["generation"] for r in record] == [0]
        assert record[0].items() <= status["history"][0].items()
        assert status["failures"] == 0
        assert all(name.endswith("-1") for name in self.jobs), "a stage has run twice"
        stages = [stage.lower() for stage in (*STAGES, "Publish")]
        expected = ["000/check", "000/evaluate", "000/publish"]
        expected += [f"001/{stage}" for stage in stages]
        assert sorted(manifests(s3, status["uri"])) == sorted(expected)


def served_crd(kubectl: Kubectl) -> Json:
    """Return the schema of the served CRD, and its annotations."""
    crd = kubectl.get(f"crd/{build_crd()['metadata']['name']}")
    (version,) = crd["spec"]["versions"]
    return {"schema": version["schema"], "annotations": crd["metadata"]["annotations"]}


def crd_of(chart: Path, helm: Helm) -> Json:
    """Return the schema of the CRD that a chart installs."""
    objects = helm.template(None, chart)
    (crd,) = (o for o in objects if o["kind"] == "CustomResourceDefinition")
    (version,) = crd["spec"]["versions"]
    schema: Json = version["schema"]
    return schema


def test_an_upgrade_and_a_rollback_lose_nothing(
    release: Run,
    helm4: Helm,
    earlier: Path,
    earlier_images: Json,
    evolution: Callable[..., Json],
    prepared: S3,
    kubectl: Kubectl,
    node_cluster: Cluster,
    namespace: str,
    tmp_path: Path,
) -> None:
    earlier_chart = earlier / "helm" / "selfemo"
    ready = ("--wait", "--timeout", "600s")
    before, now = tmp_path / "before.yaml", tmp_path / "now.yaml"
    before.write_text(yaml.safe_dump({"watchNamespaces": [namespace], **earlier_images}))
    annotation = {"example.org/version": "today"}
    today: Json = {
        "image": {"registry": "localhost"},
        "jobs": {"image": image_value(settings.BASE_IMAGE)},
        "crds": {"annotations": annotation},
    }
    now.write_text(yaml.safe_dump(today))
    upgrade = (str(CHART), "--reset-then-reuse-values", "--values", str(now), *ready)
    once = {"stopping": {"maxGenerations": 1}}

    # the earlier version starts an evolution
    release("install", str(earlier_chart), "--values", str(before), "--take-ownership", *ready)
    assert served_crd(kubectl)["schema"] == crd_of(earlier_chart, helm4)
    forth = World(kubectl, "forth")
    forth.start(evolution(**once))
    spec = forth.spec
    forth.wait_for_generation_1()

    # values without the new chart's defaults are refused, and change nothing
    with pytest.raises(HelmError, match="use --reset-then-reuse-values"):
        release("upgrade", str(CHART), "--reuse-values", *ready)

    # an upgrade while a stage runs
    jobs, history = forth.jobs, forth.history
    output = release("upgrade", *upgrade)
    assert "helm rollback selfemo" in output
    assert "cannot" in output.partition("helm rollback selfemo")[2]
    assert served_crd(kubectl)["schema"] == crd_of(CHART, helm4)
    assert annotation.items() <= served_crd(kubectl)["annotations"].items()
    forth.check_end(prepared, history)
    assert forth.spec == spec
    assert jobs.items() <= forth.jobs.items(), "a Job was replaced"
    assert forth.images == [earlier_image(), settings.BASE_IMAGE]
    assert denied(node_cluster, namespace) == []

    # a rollback while a stage of another evolution runs; the earlier version knows no figures of
    # expression, which Evaluate has where the responder plays
    back = World(kubectl, "back")
    back.start(evolution(selfPlay={"roles": ["Recognizer"]}, **once))
    spec = back.spec
    back.wait_for_generation_1()
    jobs, history, ended = back.jobs, back.history, forth.history
    release("rollback", "1", *ready)
    assert served_crd(kubectl)["schema"] == crd_of(earlier_chart, helm4)
    assert not annotation.items() <= served_crd(kubectl)["annotations"].items()
    back.check_end(prepared, history)
    assert back.spec == spec
    assert jobs.items() <= back.jobs.items(), "a Job was replaced"
    assert back.images == [settings.BASE_IMAGE, earlier_image()]
    assert [r["f1"] for r in forth.history] == [r["f1"] for r in ended]

    # forward again, with both evolutions at their end
    history = back.history
    release("upgrade", *upgrade)
    assert served_crd(kubectl)["schema"] == crd_of(CHART, helm4)
    assert back.history == history
    assert back.spec == spec
