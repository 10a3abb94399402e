"""The metrics SIC and AIC, under each convention: what they compute, their columns and summaries."""

from typing import Any

from torch import Tensor

from riemannopt_dist.metrics.information.conventions import CONVENTIONS
from riemannopt_dist.metrics.information.curves import information_curve
from riemannopt_dist.metrics.metric import Column, MapBatch, Metric, Summary


def _metric(convention: str, requires: str = "") -> Metric:
    """SIC and AIC under one convention, whose name ends the columns' names unless it is the default."""
    end = "" if convention == "pair" else f"_{convention}"

    def compute(batch: MapBatch) -> dict[str, Tensor | tuple[str | None, ...]]:
        result = information_curve(
            batch.objective, batch.images, batch.maps, convention=convention, seed=batch.seed
        )
        return {
            f"sic{end}": result.sic,
            f"aic{end}": result.aic,
            f"information{end}_x": result.information,
            f"sic{end}_y": result.probability,
            f"aic{end}_y": result.correct,
            f"sic{end}_skipped": result.sic_skipped,
            f"aic{end}_skipped": result.aic_skipped,
        }

    return Metric(
        name=f"information{end}",
        columns=_columns(end),
        summaries=(
            Summary(f"sic{end}", "area_of_median_curve", (f"information{end}_x", f"sic{end}_y"), "higher"),
            Summary(f"aic{end}", "mean", (f"aic{end}",), "higher"),
        ),
        compute=compute,
        passes_a_map=CONVENTIONS[convention].steps,
        passes_an_image=2,
        requires=requires,
        of_channel_sums=True,
    )


def _columns(end: str) -> tuple[Column, ...]:
    """Those of a convention, whose names end in `end`."""
    skipped: dict[str, Any] = {
        curve: {"undefined": "where the image is skipped", "reason": f"{curve}{end}_skipped"}
        for curve in ("sic", "aic")
    }
    aic = f"the area under aic{end}_y; of probabilities of 0.8 and more, as for sic{end}"
    return (
        Column(
            f"sic{end}", "area in [0, 1]", "higher", **skipped["sic"], meaning=f"the area under sic{end}_y"
        ),
        Column(f"aic{end}", "area in [0, 1]", "higher", **skipped["aic"], meaning=aic),
        Column(
            f"information{end}_x",
            "share of the input's information",
            kind="list",
            **skipped["sic"],
            meaning="how much of the picture is back, from the blurred image (0) to the input (1)",
        ),
        Column(
            f"sic{end}_y",
            "share of the input's probability",
            kind="list",
            **skipped["sic"],
            meaning="how much of the class's probability is back (SIC)",
            x=f"information{end}_x",
        ),
        Column(
            f"aic{end}_y",
            "top class or not",
            kind="list",
            **skipped["aic"],
            meaning="whether the class is the top one (AIC)",
            x=f"information{end}_x",
        ),
        Column(
            f"sic{end}_skipped", "reason", kind="text", meaning="why the image has no SIC; null if it has"
        ),
        Column(
            f"aic{end}_skipped", "reason", kind="text", meaning="why the image has no AIC; null if it has"
        ),
    )


INFORMATION = _metric("pair")
INFORMATION_FAST = _metric("fast")
INFORMATION_OFFICIAL_PNG = _metric("official_png")
INFORMATION_OFFICIAL_MS_SSIM = _metric("official_ms_ssim", "pytorch_msssim")
