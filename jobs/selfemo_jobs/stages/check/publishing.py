"""Whether the run can copy its models to ``spec.publish``.

The hub is not asked: only the name of the repository and the token are looked at.
"""

from __future__ import annotations

from selfemo_api.contract import StageConfig
from selfemo_jobs.models.hub_upload import check_hub_target
from selfemo_jobs.models.publish_target import check_outside_run, check_replaceable, read_target
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.storage import Reader, check_writable
from selfemo_jobs.store import join, store_for

_FIELD = "publish"


def check_publish(config: StageConfig, reader: Reader, findings: Findings) -> None:
    """Find why models cannot be copied to ``spec.publish``.

    Parameters
    ----------
    config
        The configuration of the check.
    reader
        What the input is read with.
    findings
        The problems are added to it.
    """
    target = config.spec.publish
    if target is None or reader.skips(target):
        return
    with findings.collecting(_FIELD):
        if target.startswith("hf://"):
            check_hub_target(target)
            return
        check_outside_run(target, join(config.spec.storage.uri, config.run))
        check_replaceable(target, read_target(target, reader.store), config.run)
        check_writable(store_for(target, reader.store), target, _FIELD, findings)
