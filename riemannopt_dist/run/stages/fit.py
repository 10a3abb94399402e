"""The second stage: how much each image's integrand changes along each path."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from riemannopt_dist.choices import Precision
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.quadrature.variation import path_variation
from riemannopt_dist.run import schemas
from riemannopt_dist.run.examples import Example
from riemannopt_dist.run.stages.base import Part, Row
from riemannopt_dist.run.stages.batches import example_batches
from riemannopt_dist.run.stages.engine import Engine


@dataclass(frozen=True)
class Fitting:
    """Algorithm 1 for each image: how much the integrand changes between each path's positions."""

    name: str
    positions: Mapping[str, tuple[float, ...]]
    paths: Mapping[str, PathFamily]
    explain: Output
    batch_size: int
    precision: Precision = "fp32"
    key: ClassVar[tuple[str, ...]] = ("path",)

    @property
    def schema(self) -> pa.Schema:
        """An image's variation along one path."""
        return schemas.VARIATIONS

    @property
    def parts(self) -> Sequence[Part]:
        """The paths."""
        return [(path,) for path in self.positions]

    def kept(self, fingerprint: str) -> Container[Part]:
        """All: what a path's rows hold depends on no other."""
        return self.parts

    def only(self, parts: Iterable[Part]) -> "Fitting":
        """The stage for some of its paths."""
        return replace(self, positions={path: self.positions[path] for (path,) in parts})

    def rows(self, engine: Engine, items: Sequence[Example]) -> Iterator[Row]:
        """The variation of every image along every path. Raises FloatingPointError unless finite."""
        batches = example_batches(items, engine, self.batch_size)
        for examples, images, targets in engine.tally.awaited(batches):
            size = engine.internal_batch_size
            objective = Objective(engine.model, targets, self.explain, size, self.precision)
            for label, alphas in self.positions.items():
                path = self.paths[label].through(images)
                variations = path_variation(path, objective, np.array(alphas))
                if not np.isfinite(variations).all():
                    raise FloatingPointError(f"the gradients along the path {label} are not finite")
                for example, variation in zip(examples, variations, strict=True):
                    yield {
                        "image_id": example.image.image_id,
                        "path": label,
                        "alphas": alphas,
                        "variation": variation.tolist(),
                    }
