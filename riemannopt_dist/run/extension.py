"""A run that goes on as a larger one: which of its rows stay, and what its run.json then tells.

A larger limit adds images, which have shards of their own. Further cells are computed for all images, and a
further metric needs all maps again. Rows stay where a run of the larger configuration would have the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from riemannopt_dist.estimators.base import NONE
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.run.config.config import Config
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.directory import RUN, RunDirectory
from riemannopt_dist.run.grid import Cell
from riemannopt_dist.run.stages.names import FIT, RESULTS
from riemannopt_dist.run.steps import EXTENDED, steps_of


@dataclass(frozen=True)
class Extension:
    """A run of the configuration `earlier` that goes on as one of `now`, which has no less."""

    earlier: Config
    now: Config

    @cached_property
    def kept(self) -> frozenset[Cell]:
        """The cells whose rows stay as they are; their images have them already.

        None does with another metric. A profile places the converged maps of its path, too: where it is new,
        what was compared with others is compared again.
        """
        if {*self.earlier.metrics} != {*self.now.metrics}:
            return frozenset()
        return frozenset(cell for cell in self.earlier.row_cells() if not self._compared_anew(cell))

    @property
    def lacking(self) -> list[Cell]:
        """The cells, of the grid and of controls, that images which are there have yet to get."""
        return [cell for cell in self.now.row_cells() if cell not in self.kept]

    @property
    def newly_fitted(self) -> list[str]:
        """The paths that are to be sampled on the fit subset."""
        return [path for path in self.now.fitted_paths() if path not in self.earlier.fitted_paths()]

    @property
    def stages(self) -> list[str]:
        """The stages whose shards lack something."""
        return [*([FIT] if self.newly_fitted else []), *([RESULTS] if self.lacking else [])]

    def words(self) -> Iterator[str]:
        """What is added, a phrase each."""
        earlier, now = self.earlier, self.now
        if now.limit != earlier.limit:
            yield f"limit {earlier.limit} → {now.limit or 'all'}"
        if further := len({*now.cells()} - {*earlier.cells()}):
            yield f"{further} further cells"
        for key in ("metrics", "controls"):
            if names := [name for name in getattr(now, key) if name not in getattr(earlier, key)]:
                yield f"{key} {', '.join(names)}"
        if again := len({*earlier.row_cells()} - self.kept):
            yield f"{again} cells computed again for these"

    def _compared_anew(self, cell: Cell) -> bool:
        compared = "reference" in self.now.metrics and cell.path in self.newly_fitted
        return compared and cell.path != NONE and ESTIMATORS[cell.estimator].tends_to_integral


def extension_of(run: Mapping[str, Any], config: Config) -> Extension | None:
    """How the run that `run`, its run.json, tells of is extended by `config`; None where it is of that."""
    if config.fingerprint(run["weights_digest"]) == run["fingerprint"]:
        return None
    return Extension(make_config(run["config"], RUN), config)


def extend(directory: RunDirectory, config: Config) -> Extension | None:
    """Make a run that holds no more than `config` the run of that. None where it is already."""
    run = directory.read_run()
    extension = extension_of(run, config)
    if extension is not None:
        before = [*steps_of(run), {"fingerprint": run["fingerprint"], "config": run["config"]}]
        steps = [{**step, "lacking": _extension(step, config).stages} for step in before]
        now = {"fingerprint": config.fingerprint(run["weights_digest"]), "config": config.published()}
        directory.storage.write_json(RUN, {**run, **now, EXTENDED: steps})
    return extension


def kept_cells(run: Mapping[str, Any], config: Config) -> dict[str, frozenset[Cell]]:
    """By the fingerprint that a result file tells, the cells whose rows in it stay in the run of `config`."""
    earlier = {step["fingerprint"]: _extension(step, config).kept for step in steps_of(run)}
    return earlier | {run["fingerprint"]: frozenset(config.row_cells())}


def _extension(step: Mapping[str, Any], config: Config) -> Extension:
    return Extension(make_config(step["config"], RUN), config)
