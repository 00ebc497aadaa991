"""The problems of an input on a real API server: a condition and an Event have all of them."""

from __future__ import annotations

import pytest

from selfemo_api.contract import ExitCode
from selfemo_api.stages import Stage
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.fake_kubelet import FakeKubelet, failing, succeeding
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

PROBLEMS = "\n".join(
    [
        "2 problems",
        "dataset.sources[1].uri: data://mine/dev.jsonl: /data/mine/dev.jsonl does not exist",
        "model.uri: the model is quantized (gptq, 4 bits): use the unquantized model",
    ]
)


def test_all_problems_are_shown_and_an_edit_checks_again(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.ending = failing(ExitCode.BAD_INPUT, PROBLEMS)
    evolutions.create(stopping={"maxGenerations": 1})
    assert evolutions.wait_end()["status"]["phase"] == "Failed"
    text = f"generation 0, Check: {PROBLEMS}"
    for kind in ("Succeeded", "Stalled"):
        condition = evolutions.condition(kind)
        assert (condition["reason"], condition["message"]) == ("BadInput", text)
    (event,) = (e for e in evolutions.events() if e["reason"] == "BadInput")
    assert (event["type"], event["message"]) == ("Warning", text)
    assert kubelet.ended == [(0, Stage.CHECK.value, ExitCode.BAD_INPUT)]
    kubelet.ending = succeeding
    evolutions.edit(failurePolicy={"maxAttempts": 5})
    evolutions.wait(lambda s: s.get("phase") == "Succeeded", "success after the fix")
    assert kubelet.ended[1] == (0, Stage.CHECK.value, 0)
    assert kubelet.ended[2][1] != Stage.CHECK.value
