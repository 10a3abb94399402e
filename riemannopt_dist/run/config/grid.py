"""A block of the grid: the product of paths, estimators, placements and sample counts."""

import itertools
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.quadrature.placement.table import OUTPUT_PLACEMENTS, PLACEMENTS, output_placement
from riemannopt_dist.run.config.path import PathConfig
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import Items, PositiveInt, entry_of
from riemannopt_dist.run.grid import Cell, make_cell


def _placement(name: str) -> str:
    if output_placement(name) is None:
        PLACEMENTS.check(name, (LINEAR, ADAPTIVE, *OUTPUT_PLACEMENTS))
    return name


EstimatorName = Annotated[str, AfterValidator(entry_of(ESTIMATORS))]
PlacementName = Annotated[str, AfterValidator(_placement)]


class GridBlock(Strict):
    """A full product of paths, estimators, placements and sample counts.

    A path is a name, or a name with parameters: {path: ig, baseline: white}. For each path and each of
    `tolerances` there is a cell besides, whose images take as many points as they need for it, at most
    `maximum`: the softmax_trapezoid with the placement adaptive, whatever the block's own. Beside them the
    product may be empty.
    """

    former_keys: ClassVar[Mapping[str, str]] = {
        "methods": "is called 'paths' now",
        "schedules": "is called 'placements' now",
        "rules": "is called 'estimators' now",
    }

    paths: Annotated[Items[PathConfig], Field(min_length=1)] = (PathConfig(path="ig"),)
    estimators: Items[EstimatorName] = ("right",)
    placements: Items[PlacementName] = (LINEAR, "riemannopt")
    samples: Items[PositiveInt] = (16, 32, 64, 128)
    tolerances: Items[Annotated[float, Field(gt=0)]] = ()
    maximum: PositiveInt = 256

    @model_validator(mode="after")
    def _cells_exist(self) -> Self:
        if not self.cells():
            empty = next(key for key in ("placements", "estimators", "samples") if not getattr(self, key))
            raise ValueError(f"{empty}: expected at least one, got []")
        return self

    def families(self) -> list[PathFamily]:
        """The block's paths."""
        return [path.family for path in self.paths]

    def cells(self) -> list[Cell]:
        """The block's cells. Raises ValueError for a combination that does not exist."""
        families = self.families()
        product = itertools.product(families, self.estimators, self.placements, self.samples)
        within = itertools.product(families, self.tolerances)
        return [make_cell(*choice) for choice in product] + [
            make_cell(family, "softmax_trapezoid", ADAPTIVE, self.maximum, tolerance)
            for family, tolerance in within
        ]
