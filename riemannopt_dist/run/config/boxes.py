"""The boxes of objects in the images."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from riemannopt_dist.metrics.metric import BOX_TOLERANCE
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import LocalPath


class BoxesConfig(Strict):
    """The boxes of objects that pointing_game plays with: a folder of XML files, such as ImageNet's.

    An image's file is at its path or has its name, with the ending xml. A hit is in a box, or at most
    `tolerance` pixels of the model's input beside one.
    """

    folder: LocalPath
    tolerance: Annotated[float, Field(ge=0)] = BOX_TOLERANCE

    @model_validator(mode="before")
    @classmethod
    def _in_folder(cls, value: Any) -> Any:
        """A text is a folder."""
        return {"folder": value} if isinstance(value, str) else value
