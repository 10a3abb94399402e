"""The metrics by name: what a configuration may ask for. A new one is a file and an entry here."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from riemannopt_dist.metrics.metric import Metric

MS_SSIM = "information_official_ms_ssim"
"""The metric that needs a package of the extra `ms-ssim`."""


class _Table(Mapping[str, Metric]):
    """A metric's module is imported when it is looked up: to know the names takes no torch."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes

    def __getitem__(self, name: str) -> Metric:
        module, constant = self._homes[name].split(":")
        metric: Metric = getattr(import_module(f"riemannopt_dist.metrics.{module}"), constant)
        return metric

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


METRICS = _Table(
    {
        "completeness": "completeness:COMPLETENESS",
        "insertion": "insertion:INSERTION",
        "insertion_smoothed": "insertion:SMOOTHED_INSERTION",
        "deletion": "insertion:DELETION",
        "information": "information:INFORMATION",
        "information_fast": "information:INFORMATION_FAST",
        "information_official_png": "information:INFORMATION_OFFICIAL_PNG",
        MS_SSIM: "information:INFORMATION_OFFICIAL_MS_SSIM",
        "reference": "reference:REFERENCE",
    }
)
