"""The arguments of PEFT follow from the spec."""

from __future__ import annotations

from selfemo_api.spec import TrainingSpec
from selfemo_jobs.models.adapters import lora_config


def test_all_linear_is_a_keyword_and_not_a_module() -> None:
    assert lora_config(TrainingSpec()) is None
    default = lora_config(TrainingSpec.model_validate({"lora": {"rank": 8}}))
    assert default is not None
    assert (default.target_modules, default.r) == ("all-linear", 8)
    modules = {"lora": {"targetModules": ["q_proj", "v_proj"]}}
    config = lora_config(TrainingSpec.model_validate(modules))
    assert config is not None
    assert set(config.target_modules) == {"q_proj", "v_proj"}
