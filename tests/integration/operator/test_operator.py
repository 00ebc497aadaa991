"""The operator's process on a real API server: runs, failures, edits, deletion and election."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.stages import Stage
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import ROOT, document, wait_for
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.fake_kubelet import FakeKubelet, failing, succeeding
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

#: The stages of a run: two of generation 0 (Check, Evaluate), and five of each later generation.
STAGES = 15
#: A shorter run, where the number of generations is not the subject, and its stages.
ONE_GENERATION = {"maxGenerations": 1}
SHORT_STAGES = 9
IMAGE_WAIT = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}


def test_three_generations_to_the_end(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    evolutions.create()
    status = evolutions.wait_end()["status"]
    assert status["phase"] == "Succeeded"
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    assert status["best"]["generation"] == 2
    assert status["f1"] == pytest.approx(0.4)
    assert evolutions.condition("Succeeded")["status"] == "True"
    jobs = evolutions.jobs()
    assert len(jobs) == STAGES
    assert len({j["metadata"]["name"] for j in jobs}) == STAGES
    promoted = ["GenerationPromoted"] * 2
    ends = ["InputChecked", "MaxGenerationsReached", "Started"]
    expected = ["GenerationBaseline", *promoted, *ends]
    # the operator posts the last one after it has written the status
    wait_for(lambda: len(evolutions.events()) >= len(expected), "the Events")
    assert sorted(e["reason"] for e in evolutions.events()) == expected
    assert operator.get("/livez") == 200
    _check_metrics(operator, status)
    assert operator.stop() == 0


def _check_metrics(operator: OperatorProcess, status: dict[str, Any]) -> None:
    """Check that the metrics have the values of the status, and that all are documented."""
    metrics = operator.metrics()
    score = status["history"][-1]["scores"][0]
    assert metrics["selfemo_evolution_generation"] == {(): 2.0}
    assert metrics["selfemo_evolution_weighted_f1_ratio"] == {("demo",): score["weightedF1"]}
    assert metrics["selfemo_evolution_best_f1_ratio"] == {(): status["best"]["f1"]}
    emotions = metrics["selfemo_evolution_emotion_f1_ratio"]
    assert list(emotions.values()) == score["f1ByLabel"]
    assert metrics["selfemo_evolution_reward_mean"] == {(): status["reward"]}
    assert metrics["selfemo_evolution_stage_attempts_total"][("Evaluate",)] == 3.0
    assert metrics["selfemo_evolution_phase"][("Succeeded",)] == 1.0
    assert sum(metrics["selfemo_evolution_phase"].values()) == 1.0
    assert metrics["selfemo_evolution_condition"][("Succeeded", "MaxGenerationsReached")] == 1.0
    stages = {(stage.value,) for stage in Stage if stage is not Stage.WARM_START}
    assert set(metrics["selfemo_evolution_stage_duration_seconds"]) == stages
    assert metrics["selfemo_operator_reconciles_total"][("done",)] > STAGES
    assert metrics["selfemo_operator_api_requests_total"][("201", "POST")] >= STAGES
    reference = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in metrics}
    missing = {
        name
        for name in families
        if name.startswith("selfemo") and not re.search(f"`{name}(_bucket)?`", reference)
    }
    assert not missing
    series = [n for n in metrics if n.startswith("selfemo_evolution")]
    assert sum(len(metrics[n]) for n in series) <= 120


def test_a_deletion_removes_all_objects(
    operator: OperatorProcess,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    namespace: str,
) -> None:
    kubelet.hold.set()
    evolutions.create(training={"gpusPerNode": 0, "precision": "Float32", "nodes": 2})
    wait_for(evolutions.jobs, "a Job")
    item = evolutions.get()
    kube.delete(names.evolution_path((namespace, "demo")), item["metadata"]["uid"])
    wait_for(lambda: not evolutions.jobs(), "no Job")
    for plural in ("pods", "services"):
        path = names.core_path(namespace, plural)
        wait_for(lambda p=path: not kube.get(p)["items"], f"no {plural}")
    # the watch delivers the deletion on its own; nothing that arrives later brings the series back
    wait_for(lambda: not operator.metrics().get("selfemo_evolution_generation"), "no series")
    time.sleep(6)  # one resync
    assert not operator.metrics().get("selfemo_evolution_generation")


def test_an_image_that_cannot_be_pulled_is_reported_until_an_edit(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.waiting = IMAGE_WAIT
    evolutions.create(
        podTemplate=[{"template": {"image": "nowhere/none:0"}}], stopping=ONE_GENERATION
    )
    evolutions.wait(
        lambda s: any("ImagePullBackOff" in c["message"] for c in s.get("conditions", [])),
        "the reason in a condition",
    )
    assert evolutions.condition("Progressing")["status"] == "False"
    kubelet.waiting = None
    kubelet.hold.set()
    template = {"schedulerName": "none", "image": "selfemo/jobs:fixed"}
    evolutions.edit(podTemplate=[{"template": template}])
    # the first pod may have started by then: only a Job that has not started is replaced
    kubelet.hold.clear()
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded"


def test_the_pending_deadline_ends_the_evolution(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.waiting = IMAGE_WAIT
    evolutions.create(deadlines={"stagePendingSeconds": 10})
    status = evolutions.wait_end()["status"]
    assert status["phase"] == "Failed"
    assert evolutions.condition("Stalled")["reason"] == "PendingTooLong"
    assert "ImagePullBackOff" in evolutions.condition("Stalled")["message"]
    wait_for(lambda: not evolutions.jobs(), "the Job to be gone")


def test_suspend_and_resume_during_a_stage(
    operator: OperatorProcess,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    namespace: str,
) -> None:
    kubelet.hold.set()
    evolutions.create(
        deadlines={"stageActiveSeconds": 3600, "stagePendingSeconds": 5}, stopping=ONE_GENERATION
    )
    wait_for(lambda: evolutions.jobs() and evolutions.jobs()[0]["status"].get("ready"), "a pod")
    evolutions.edit(suspend=True)
    wait_for(lambda: not kube.get(names.core_path(namespace, "pods"))["items"], "no pod")
    evolutions.wait(lambda s: s.get("phase") == "Suspended", "Suspended")
    time.sleep(6)  # longer than the pending deadline, which does not apply during a suspension
    assert evolutions.get()["status"]["phase"] == "Suspended"
    kubelet.hold.clear()
    evolutions.edit(suspend=False)
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded", evolutions.condition("Stalled")
    assert len(evolutions.jobs()) == SHORT_STAGES, "no stage was started under another name"


def test_failures_are_counted_and_bad_input_is_not_retried(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.ending = failing(1, "it broke: try less")
    evolutions.create(
        failurePolicy={"maxAttempts": 2, "backoffSeconds": 0}, stopping=ONE_GENERATION
    )
    status = evolutions.wait_end()["status"]
    assert status["phase"] == "Failed"
    assert evolutions.condition("Succeeded")["reason"] == "StageFailed"
    assert "it broke" in evolutions.condition("Stalled")["message"]
    assert len(evolutions.jobs()) == 2
    assert any("it broke" in e["message"] for e in evolutions.events())
    kubelet.ending = failing(2, "row 7 has no text")
    evolutions.edit(failurePolicy={"maxAttempts": 5})  # an edit retries the stage
    evolutions.wait(lambda s: s.get("attempt") == 3 and s.get("completionTime"), "the end")
    assert evolutions.condition("Stalled")["reason"] == "BadInput"
    kubelet.ending = succeeding
    evolutions.edit(failurePolicy={"maxAttempts": 6})
    evolutions.wait(lambda s: s.get("phase") == "Succeeded", "success after the fix")


def test_a_deleted_job_is_replaced_under_another_name(
    operator: OperatorProcess,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    namespace: str,
) -> None:
    kubelet.hold.set()
    evolutions.create(stopping=ONE_GENERATION)
    (job,) = wait_for(evolutions.jobs, "a Job")
    kube.delete(names.job_path((namespace, job["metadata"]["name"])), job["metadata"]["uid"])
    (other,) = wait_for(
        lambda: [j for j in evolutions.jobs() if j["metadata"]["uid"] != job["metadata"]["uid"]],
        "another Job",
    )
    assert other["metadata"]["name"] != job["metadata"]["name"]
    assert evolutions.get()["status"]["disruptions"] == 1
    kubelet.hold.clear()
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded"


def test_host_access_is_rejected_and_reported(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    volume = {"name": "root", "hostPath": {"path": "/"}}
    template = {"stages": ["Train"], "template": {"volumes": [volume]}}
    evolutions.create(podTemplate=[template], stopping=ONE_GENERATION)
    evolutions.wait_end()
    message = evolutions.condition("Stalled")["message"]
    assert "podTemplate[1].template.volumes[root].hostPath" in message
    assert not evolutions.jobs()
    evolutions.edit(podTemplate=[{"template": {"schedulerName": "none"}}])
    evolutions.wait(lambda s: s.get("phase") == "Succeeded", "success after the edit")


def test_a_rejected_job_is_reported(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    evolutions.create(podTemplate=[{"template": {"env": [{"name": "not a name=", "value": "x"}]}}])
    evolutions.wait_end()
    assert "spec.template.spec.containers[0].env" in evolutions.condition("Stalled")["message"]
    assert evolutions.condition("Stalled")["reason"] == "BadInput"


def test_an_invalid_spec_is_rejected_with_the_name_of_the_field(evolutions: Evolutions) -> None:
    with pytest.raises(ApiError, match=r"spec\.selfPlay\.groupSize"):
        evolutions.create(selfPlay={"groupSize": 1})
    with pytest.raises(ApiError, match="batchSize"):
        evolutions.create(training={"batchSize": 10, "microBatchSize": 4})


def test_edits_of_the_evaluation_label_prior_are_rejected(evolutions: Evolutions) -> None:
    labels = evolutions.create("plain")["spec"]["dataset"]["labels"]
    shares = dict.fromkeys(labels, 1 / len(labels))
    evolutions.edit("plain", dataset={"labelPrior": shares})
    evolutions.edit("plain", dataset={"labelPrior": {labels[0]: 0.5}})
    with pytest.raises(ApiError, match=r"`evaluation\.useLabelPrior` is immutable"):
        evolutions.edit("plain", evaluation={"useLabelPrior": True})
    dataset = {**document("demo")["spec"]["dataset"], "labelPrior": shares}
    evolutions.create(dataset=dataset, evaluation={"useLabelPrior": True})
    evolutions.edit(dataset={"labelPrior": shares}, suspend=True)
    for edited in ({labels[0]: 0.5}, None):
        with pytest.raises(ApiError, match=r"`dataset\.labelPrior` is immutable with"):
            evolutions.edit(dataset={"labelPrior": edited})
    prior = {**dataset, "labelPrior": {"joy": 0.5, "rage": 0.5}}
    with pytest.raises(ApiError, match=r"the keys of `dataset\.labelPrior` must be exactly"):
        evolutions.create("other", dataset=prior)


def test_evolutions_of_other_controllers_are_ignored(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    evolutions.create("theirs", managedBy="example.com/other")
    evolutions.create(stopping=ONE_GENERATION)
    evolutions.wait_end()
    assert "status" not in evolutions.get("theirs")


def test_at_most_twelve_writes_per_generation_and_none_when_idle(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    tmp_path: Path,
) -> None:
    proxy = CountingProxy(kube)
    try:
        make_operator(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"))
        evolutions.create()
        evolutions.wait_end()
        time.sleep(2)
        count = len(proxy.writes)
        writes = "\n".join(f"{method} {path}" for method, path in proxy.writes)
        # of generation 0: its start; a Job, an Event and a status for Check and for Evaluate; a Job
        # and a status for Publish
        assert count <= 1 + 2 * 4 + 2 * 14, writes
        # the watch delivers most termination messages; a Job whose end arrives first costs a list
        lists = [p for p in proxy.reads if "/pods?" in p and "watch=" not in p]
        assert len([p for p in lists if "resourceVersion=0" not in p]) < STAGES / 2, lists
        time.sleep(12)  # two resyncs
        assert len(proxy.writes) == count, proxy.writes[count:]
    finally:
        proxy.stop()


def test_two_operators_at_the_same_time_run_each_stage_once(
    make_operator: Callable[..., OperatorProcess], evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    make_operator(identity="one")
    make_operator(identity="two")  # without election, the worst case
    evolutions.create()
    status = evolutions.wait_end()["status"]
    assert status["phase"] == "Succeeded"
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    succeeded = [key for *key, code in kubelet.ended if code == 0]
    assert len(succeeded) == STAGES
    assert len(evolutions.jobs()) == STAGES


def test_the_lease_elects_a_leader_and_the_other_takes_over(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    namespace: str,
) -> None:
    election = ("--lease-namespace", namespace)
    first = make_operator(*election, identity="one")
    path = names.lease_path(namespace, "selfemo-operator")
    wait_for(lambda: _holder(kube, path) == "one", "the first to lead")
    second = make_operator(*election, identity="two")
    evolutions.create("first", stopping=ONE_GENERATION)
    evolutions.wait_end("first")
    assert second.text().count("GenerationBaseline") == 0
    first.kill()
    wait_for(lambda: _holder(kube, path) == "two", "the second to lead", seconds=40)
    evolutions.create("second", stopping=ONE_GENERATION)
    assert evolutions.wait_end("second")["status"]["phase"] == "Succeeded"
    assert second.stop() == 0
    assert _holder(kube, path) == "", "a leader that is stopped releases the Lease"


def _holder(kube: KubeClient, path: str) -> str | None:
    try:
        return str(kube.get(path)["spec"].get("holderIdentity") or "")
    except ApiError:
        return None
