"""The warm start in the report: weighted F1 and loss by step."""

from __future__ import annotations

from collections.abc import Sequence

from selfemo_api.metrics import WarmStartMetric
from selfemo_api.stages import Stage
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.types import ChartSection, Point, ReportData, Series, WarmStart
from selfemo_jobs.runtime.run_reader import StageRecord


def warm_start_of(records: Sequence[StageRecord]) -> WarmStart | None:
    """Return the evaluations of the warm start, or None if the run has none.

    Parameters
    ----------
    records
        The finished stages of the run.
    """
    for record in records:
        manifest = record.manifest
        if manifest.stage is not Stage.WARM_START:
            continue
        points = manifest.report.get("evaluations") or []
        return WarmStart(
            dataset=str(manifest.report.get("selectionDataset", "")),
            best_step=int(manifest.metrics.get(WarmStartMetric.BEST_STEP, 0)),
            f1=tuple(Point(int(p["step"]), float(p["weightedF1"])) for p in points),
            loss={int(p["step"]): float(p["loss"]) for p in points if p["loss"] is not None},
        )
    return None


def warm_start_section(data: ReportData) -> ChartSection | None:
    """Return weighted F1 of the warm start by step, with the loss in its table.

    Parameters
    ----------
    data
        The content of the page.

    Returns
    -------
    ChartSection or None
        None if the run has no warm start.
    """
    warm_start = data.warm_start
    if warm_start is None or not warm_start.f1:
        return None
    return ChartSection(
        "Warm start",
        f"Weighted F1 on {warm_start.dataset} during the supervised training on the labeled "
        "sources. It ended when F1 stopped rising. The best weights are generation 0. A loss is "
        "the mean over the steps since the evaluation before.",
        (
            line_chart(
                (Series("", warm_start.f1),),
                title="Weighted F1 by step of the warm start",
                best=warm_start.best_step,
                axis="step",
            ),
        ),
        ("step", "weighted F1", "loss"),
        tuple(
            (
                str(point.generation),
                f"{point.value:.4f}",
                f"{loss:.4f}" if (loss := warm_start.loss.get(point.generation)) else "",
            )
            for point in warm_start.f1
        ),
    )
