"""A path of the grid: its name, and perhaps parameters."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, model_validator

from riemannopt_dist.paths.base import PathFamily
from riemannopt_dist.paths.table import PATHS, parsed_label, path_family
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import entry_of


class PathConfig(Strict):
    """A path with parameters: `baseline` of ig and guided_ig, `sigma_max` of blur_ig, and so on.

    They are those of its class in riemannopt_dist/paths/table.py, or of a user's own.
    """

    model_config = ConfigDict(extra="allow")

    path: Annotated[str, AfterValidator(entry_of(PATHS))]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A name is a path by its defaults; so is one with parameters as tables have it."""
        if not isinstance(value, str):
            return value
        name, parameters = parsed_label(value)
        return {"path": name, **parameters}

    @model_validator(mode="after")
    def _with_its_parameters(self) -> Self:
        """The path. Raises ValueError for parameters that it lacks."""
        path_family(self.path, self.model_extra)
        return self

    @property
    def family(self) -> PathFamily:
        """The path's family. Raises ValueError for parameters that it lacks."""
        return path_family(self.path, self.model_extra)
