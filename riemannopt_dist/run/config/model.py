"""The classifier: a model's name, weights and images, and the names of its classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from riemannopt_dist.choices import HF, Interpolation, height_and_width
from riemannopt_dist.run.config.strict import Strict
from riemannopt_dist.run.config.values import Items, PositiveInt, Text, either, local
from riemannopt_dist.run.config.wording import shown

if TYPE_CHECKING:
    from riemannopt_dist.models.recipe import ModelSettings


def _model_name(name: str) -> str:
    """A folder's path made absolute: workers run in other directories."""
    is_folder = name.startswith(HF)
    return f"{HF}{Path(local(name.removeprefix(HF))).expanduser().absolute()}" if is_folder else name


def _size(value: Any) -> Any:
    """Pixels as they are told, checked."""
    if value is not None:
        height_and_width(value)
    return tuple(value) if isinstance(value, list) else value


def _channels(count: int) -> int:
    if count not in (1, 3):
        raise ValueError(f"expected 1 or 3, got {count}")
    return count


def _class_names(value: Any) -> Any:
    """The names of classes, or their file, as they are told, checked: of many the bad one is named."""
    if isinstance(value, str):
        return local(value)
    for index, name in enumerate(value if isinstance(value, list | tuple) else ()):
        if not isinstance(name, str) or not name:
            raise ValueError(f"expected a name of each class, got {shown(name)} for class {index}")
    return value


Size = Annotated[int | tuple[int, int], BeforeValidator(_size)]
# To a Literal true is 1.
Channels = Annotated[int, AfterValidator(_channels)]
OutputKey = Annotated[Text | Annotated[int, Field(ge=0)], either("a key, or a place from 0 on")]
ClassNames = Annotated[
    Text | Items[Text], either("a file, or a list of names"), BeforeValidator(_class_names)
]


class ModelConfig(Strict):
    """The classifier: a name that `load_model` knows, its weights, and what else `load_model` takes.

    `weights` may be a training script's checkpoint of a network with `num_classes` classes. Where its images
    are not prepared as for the published weights, `input_size` is what it takes and `resize_size` what an
    image just covers, in its own shape, before the middle of it is cut: the side of a square or [height,
    width]. Without the latter as large a share of an image is cut as for the published weights.
    `interpolation` is how it is scaled. `channels` is 1 for grey images, 3 for RGB, and `mean` and `std` have
    a value for each. `output_key` is the key or place of the logits in an output that is a mapping or a
    tuple.

    `classes` are the names of its classes in order, or a file with a name a line: folders of these names
    label the images in them.
    """

    name: Annotated[str, AfterValidator(_model_name)]
    weights: Annotated[str, AfterValidator(local)] | None = None
    num_classes: PositiveInt | None = None
    mean: Items[float] | None = None
    std: Items[float] | None = None
    input_size: Size | None = None
    resize_size: Size | None = None
    interpolation: Interpolation | None = None
    channels: Channels | None = None
    output_key: OutputKey | None = None
    classes: ClassNames | None = None

    @property
    def settings(self) -> "ModelSettings":
        """The settings of `load_model`."""
        settings: ModelSettings = self.model_dump(exclude={"name", "weights", "classes"})  # type: ignore[assignment]
        return settings

    def class_names(self) -> tuple[str, ...] | None:
        """The names of its classes, where they are told. Raises ValueError for a file that cannot be read."""
        if not isinstance(self.classes, str):
            return self.classes
        try:
            lines = Path(self.classes).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"model.classes: expected a file with a name a line: {error}") from None
        return tuple(line.strip() for line in lines if line.strip())
