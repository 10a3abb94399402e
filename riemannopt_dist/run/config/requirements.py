"""What the metrics of a configuration need besides: boxes of objects, and packages."""

import importlib.util

from riemannopt_dist.metrics.table import METRICS
from riemannopt_dist.run.config.config import Config


def check_metrics(config: Config) -> None:
    """Raise ValueError for a metric whose package is not installed, and one that needs boxes without any."""
    for metric in (METRICS[name] for name in config.metrics):
        if metric.needs_boxes and config.boxes is None:
            raise ValueError(
                f"metrics: {metric.name} needs the boxes of objects: give the folder of their XML files, "
                "boxes: FOLDER"
            )
        if metric.requires and importlib.util.find_spec(metric.requires) is None:
            package = metric.requires.replace("_", "-")
            raise ValueError(f"metrics: {metric.name} needs {package}: pip install {package}")
