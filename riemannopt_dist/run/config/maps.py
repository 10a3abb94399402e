"""The attribution maps that are stored."""

import fnmatch
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import Items, PositiveInt, Text
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.maps import Channels, StoredType


class MapsConfig(Strict):
    """Which attribution maps are stored, and how.

    Those of the `cells` whose names match one of the patterns, such as "ig/*/linear/16" (`*` is any text),
    and of the first `images` of those evaluated, in the order in which they were drawn; all unless said.
    With `converged` those that the metric reference compares with are stored as well, of the paths that are
    known beforehand. `channels` are summed or kept. float16 halves the space: values are in units of a map's
    largest one.
    """

    channels: Channels = "sum"
    dtype: StoredType = "float16"
    cells: Annotated[Items[Text], Field(min_length=1)] = ("*",)
    images: PositiveInt | None = None
    converged: bool = False

    def chosen(self, cells: Iterable[Cell]) -> frozenset[Cell]:
        """Of cells those that match. Raises ValueError for a pattern that none does."""
        names = {cell: str(cell) for cell in cells}
        for pattern in self.cells:
            if not fnmatch.filter(names.values(), pattern):
                raise ValueError(f"maps.cells: no cell of the grid is called {pattern!r}")
        return frozenset(c for c, name in names.items() if any(fnmatch.fnmatch(name, p) for p in self.cells))
