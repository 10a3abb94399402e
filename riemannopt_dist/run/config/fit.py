"""The subset of images that profiles are estimated on, and how."""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from riemannopt_dist.choices import DEFAULT_AVERAGE, Average, Refine
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import Text


class FitConfig(Strict):
    """The subset on which |g′| is estimated: its size and the equispaced points along each image's path.

    `refine` adds a second pass with as many points, placed by the first; "auto" where the profile lies in a
    part of the path. `average` is over images: their mean, the mean of images that are each in units of their
    own ∫|g′|, or the median of these. The placement riemannopt takes the median of the first pass whatever
    it is, and roughness an average of its own.

    With `profiles` nothing is fitted: it is a folder of profiles fitted before, <path>.json, such as the
    schedules/ of another run of the same model, or "demo:" for those of EfficientNet-Lite0 that come along.
    """

    profiles: Text | None = None
    images: Annotated[int, Field(ge=0)] = 200
    samples: Annotated[int, Field(ge=2)] = 128
    refine: Refine = "auto"
    average: Average = DEFAULT_AVERAGE

    @model_validator(mode="before")
    @classmethod
    def _none_to_fit_on(cls, fields: Any) -> Any:
        known = isinstance(fields, dict) and fields.get("profiles") is not None
        return {"images": 0, **fields} if known else fields

    @field_validator("images")
    @classmethod
    def _enough(cls, images: int, info: ValidationInfo) -> int:
        if info.data.get("profiles") is None and images < 2:
            raise ValueError(f"expected at least 2, got {images}")
        if info.data.get("profiles") is not None and images:
            raise ValueError(f"expected none beside profiles, got {images}")
        return images
