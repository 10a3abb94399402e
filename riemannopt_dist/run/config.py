"""The configuration of a run: what is computed, which the fingerprint covers, and with what means."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from riemannopt_dist.choices import (
    CLOSENESS,
    DEFAULT_AVERAGE,
    FRACTION,
    MAX_DIST,
    RENAMED,
    Average,
    Output,
    Refine,
    check_choice,
)
from riemannopt_dist.metrics.table import METRICS, MS_SSIM
from riemannopt_dist.run.digest import digest_of_values
from riemannopt_dist.run.grid import Cell, Rule, ScheduleName, product_of, tolerance_cells
from riemannopt_dist.run.ledger import PATIENCE
from riemannopt_dist.run.wording import sentence, shortened, shown
from riemannopt_dist.run.yaml_text import parse_yaml
from riemannopt_dist.stores import scrubbed, without_secrets

if TYPE_CHECKING:
    from riemannopt_dist.guided_path import Walk

T = TypeVar("T")

TOLD = 10
"""Problems that a message names."""


def _known_metric(name: str) -> str:
    check_choice(name, tuple(METRICS), "metric")
    return name


def _current(name: Any) -> Any:
    if isinstance(name, str) and name in RENAMED:
        raise ValueError(
            f"{name!r} is called {RENAMED[name]!r} now (RiemannOpt as its authors run it is 'riemannopt')"
        )
    return name


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"expected each at most once, got {value!r} twice")
    return values


def _extension(text: str) -> str:
    if not text.strip("."):
        raise ValueError(f"expected an extension such as jpg, got {text!r}")
    return text.removeprefix(".").lower()


def _count_or_auto(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validated(value)
    except ValidationError:
        raise ValueError(f"expected a count or auto, got {shown(value)}") from None


# Lists, in a file: strict validation would take tuples alone.
Items = Annotated[tuple[T, ...], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
MethodName = Literal["ig", "ig_idgi", "blur_ig", "blur_ig_idgi", "guided_ig", "guided_ig_idgi"]
MetricName = Annotated[str, AfterValidator(_known_metric)]
CurrentSchedule = Annotated[ScheduleName, BeforeValidator(_current)]
CountOrAuto = Annotated[PositiveInt | Literal["auto"], WrapValidator(_count_or_auto)]
ControlName = Literal["random", "edges"]
Extension = Annotated[Text, AfterValidator(_extension)]


class _Strict(BaseModel):
    """Frozen; an unknown key is an error, a number that is infinite or NaN, and a value of another type.

    So true is not 1, 16.0 not 16, "16" no number, and 16 no text.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Strict):
    """The classifier: a name that `load_model` knows, and its weights."""

    name: str
    weights: str | None = None


class FitConfig(_Strict):
    """The subset on which |g′| is estimated: its size and the equispaced points along each image's path.

    `refine` adds a second pass with as many points, placed by the first; "auto" where the profile lies in a
    part of the path. `average` is over images: their mean, the mean of images that are each in units of their
    own ∫|g′|, or the median of these. The schedule riemannopt takes the median of the first pass whatever it
    is, and rough an average of its own.

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


class GuidedConfig(_Strict):
    """How Guided IG walks, by default as its original does.

    `fraction` of the features, those with the smallest gradients, move at a time, none of them further than
    `max_dist` from the straight line. `closeness` is how near the L1 distance must come to a step's goal, and
    `baseline` the colour, RGB in [0, 1], that walks start from.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = FRACTION
    max_dist: Annotated[float, Field(ge=0, le=1)] = MAX_DIST
    closeness: Annotated[float, Field(ge=0, lt=1)] = CLOSENESS
    baseline: Annotated[tuple[Share, Share, Share], Field(strict=False)] = (0.0, 0.0, 0.0)

    def walk(self) -> "Walk":
        """The same for the library."""
        from riemannopt_dist.guided_path import Walk  # late: a configuration is checked without torch

        return Walk(**self.model_dump())


class ReferenceConfig(_Strict):
    """The converged maps that the metric `reference` compares with.

    A trapezoid of `intervals` on the path's profile (equal intervals without one); for Guided IG, 8 intervals
    on each step of each schedule's own walk. For the first `images` of those evaluated, in the order in which
    they were drawn, or for all if not given.
    """

    images: PositiveInt | None = None
    intervals: Annotated[int, Field(ge=2, multiple_of=2)] = 1024


class GridBlock(_Strict):
    """A full product of methods, schedules, rules and sample counts.

    For each method and each of `tolerances` there is a cell besides, whose images take as many points as they
    need for it, at most `maximum`. They are adaptive points with end_weights, whatever the block's schedules
    and rules, and the cell's schedule is called auto_0.05 for a tolerance of 0.05. Beside them the product
    may be empty.
    """

    methods: Annotated[Items[MethodName], Field(min_length=1)] = ("ig",)
    schedules: Items[CurrentSchedule] = ("linear", "riemannopt")
    rules: Items[Rule] = ("right",)
    samples: Items[PositiveInt] = (16, 32, 64, 128)
    tolerances: Items[Annotated[float, Field(gt=0)]] = ()
    maximum: PositiveInt = 256

    @model_validator(mode="after")
    def _cells_exist(self) -> Self:
        if not self.cells():
            empty = next(key for key in ("schedules", "rules", "samples") if not getattr(self, key))
            raise ValueError(f"{empty}: expected at least one, got []")
        return self

    def cells(self) -> list[Cell]:
        """The block's cells. Raises ValueError for a combination that does not exist."""
        fixed = product_of(self.methods, self.schedules, self.rules, self.samples)
        return fixed + tolerance_cells(self.methods, self.tolerances, self.maximum)


class Means(_Strict):
    """What a run may use. None of it changes a result, so a run may be resumed with other means.

    There are as many workers as the cluster has room for, which is looked up again all along: at most
    `max_workers`, and at least `min_workers`, for which room is asked where there is none, so that an
    autoscaler adds nodes.

    A storage that does not answer is waited for, `patience` seconds at most. Images that it does not give
    then are given up on until the command is repeated, as those that fail are. With more than a share
    `max_given_up` of a stage's images given up on, a run is no success.
    """

    min_workers: PositiveInt = 1
    max_workers: PositiveInt | None = None
    cpus_per_worker: PositiveInt = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    attempts: PositiveInt = 3
    time_limit: Annotated[float, Field(gt=0)] = 3600.0
    patience: Annotated[float, Field(gt=0)] = PATIENCE
    max_given_up: Share = 0.01

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(f"max_workers: expected at least min_workers = {self.min_workers}")
        return self


class Config(_Strict):
    """Everything that a run is told.

    images        where the images are: a folder (a folder a synset, or flat), Parquet or WebDataset tars (one
                  file, a folder of them, or data-{000..127}.tar), on a disk that all nodes see, at s3://, gs://
                  or, for Parquet and tars, https://; or "demo:"
    labels        a file with the labels of ILSVRC2012's validation images: LOC_val_solution.csv, or
                  ILSVRC2012_validation_ground_truth.txt with meta.mat beside it
    image_extensions   those of images in WebDataset tars, such as [left.png] for key.left.png; those of all
                  image formats by default
    output        the run directory
    model         the classifier
    explain       the output explained: the target's softmax probability, or its logit
    metrics       what is measured of every map; see riemannopt_dist/metrics/table.py
    controls      maps that know nothing of the model, to compare scores with: random, edges
    grid          blocks of cells; a cell that occurs twice is computed once
    fit           the subset that the schedules are fitted on, drawn with `seed`
    guided        how Guided IG walks
    reference     the converged maps that the metric reference compares with
    limit         at most so many of the other images are evaluated, drawn with `seed` (all by default)
    shard_size    images a result file, at most
    batch_size    images computed together by a worker
    internal_batch_size   gradients computed at once, at most: bounds the memory. "auto" takes what a GPU has
                  room for, and 16 on a CPU. A worker whose device runs out of memory goes on with half of it
    means         workers, attempts, time limits, patience
    """

    images: Text
    labels: Text | None = None
    image_extensions: Annotated[Items[Extension], Field(min_length=1)] | None = None
    output: Text
    model: ModelConfig
    explain: Output = "probability"
    metrics: Annotated[Items[MetricName], AfterValidator(_distinct)] = ("completeness", "insertion")
    controls: Annotated[Items[ControlName], AfterValidator(_distinct)] = ()
    grid: Annotated[Items[GridBlock], Field(min_length=1)] = (GridBlock(),)
    fit: FitConfig = FitConfig()
    guided: GuidedConfig = GuidedConfig()
    reference: ReferenceConfig = ReferenceConfig()
    limit: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    shard_size: PositiveInt = 32
    batch_size: PositiveInt = 8
    internal_batch_size: CountOrAuto = "auto"
    means: Means = Means()

    def cells(self) -> list[Cell]:
        """The grid's distinct cells, in order."""
        return sorted({cell for block in self.grid for cell in block.cells()})

    def published(self) -> dict[str, Any]:
        """All keys as plain values, without the credentials and options that addresses hold."""
        fields = self.model_dump(mode="json")
        addresses = {key: fields[key] for key in ("images", "labels", "output") if fields[key] is not None}
        return fields | {key: without_secrets(address) for key, address in addresses.items()}

    def fingerprint(self, weights_digest: str) -> str:
        """A digest of all that the results depend on: the weights, and all keys but output and means."""
        fields = {k: v for k, v in self.published().items() if k not in ("output", "means", "grid")}
        if self.image_extensions is None:  # as in runs begun before there was this key
            del fields["image_extensions"]
        if self.fit.profiles is None:
            fields["fit"] = {k: v for k, v in fields["fit"].items() if k != "profiles"}
        fields["cells"] = [str(cell) for cell in self.cells()]
        fields["weights_digest"] = weights_digest
        return digest_of_values(fields)


def load_config(path: str, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration in a YAML file, with `overrides` (None means: not overridden).

    Raises ValueError, in one line, for a file that is missing, not YAML, or holds an unknown or bad key, and
    for a metric whose package is not installed.
    """
    try:
        fields = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"config {path}: not YAML: {error}") from None
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"config {path}: expected keys and values, got {shortened(scrubbed(shown(fields)))}")
    config = make_config(_overridden(fields, overrides or {}), f"config {path}")
    if MS_SSIM in config.metrics and importlib.util.find_spec("pytorch_msssim") is None:
        install = "pip install 'riemannopt-dist[ms-ssim]'"
        raise ValueError(f"config {path}: metrics: {MS_SSIM} needs pytorch-msssim: {install}")
    return config


def _overridden(fields: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `overrides` in their place; a mapping among these replaces keys of the one there."""
    merged = dict(fields)
    for key, value in overrides.items():
        if not isinstance(value, dict):
            merged |= {} if value is None else {key: value}
        elif isinstance(below := fields.get(key) or {}, dict):  # else it is bad, and stays so
            changes = {name: change for name, change in value.items() if change is not None}
            merged |= {key: {**below, **changes}} if changes else {}
    return merged


def make_config(fields: dict[str, Any], source: str) -> Config:
    """A Config from plain fields. Raises ValueError naming `source`, the key, its value and what is wrong."""
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        problems = [
            shortened(scrubbed(f"{'.'.join(map(str, problem['loc'])) or 'grid'}: {sentence(problem)}"))
            for problem in error.errors()
            # A list with bad items is called too short besides.
            if problem["type"] != "too_short" or not problem["input"]
        ]
        told = [*problems[:TOLD], *([f"and {len(problems) - TOLD} more"] if problems[TOLD:] else [])]
        raise ValueError(f"{source}: {'; '.join(told)}") from None
