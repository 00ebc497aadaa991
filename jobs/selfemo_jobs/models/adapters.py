"""Low-rank adapters (PEFT) as a spec describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfemo_api.spec import TrainingSpec

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(training: TrainingSpec) -> LoraConfig | None:
    """Return PEFT's configuration of an adapter.

    Parameters
    ----------
    training
        The field ``spec.training``.

    Returns
    -------
    peft.LoraConfig or None
        None if all weights are trained.
    """
    from peft import LoraConfig

    lora = training.lora
    if lora is None or lora.rank == 0:
        return None
    modules = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # a keyword of PEFT, not the name of a module
        target_modules="all-linear" if modules == ["all-linear"] else modules,
        task_type="CAUSAL_LM",
    )
