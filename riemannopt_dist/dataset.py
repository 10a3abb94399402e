"""Data sets that a program holds, torchvision's and Hugging Face's, as what the library's functions take."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from riemannopt_dist.arguments import check_images, check_positive, check_range
from riemannopt_dist.data.classes import CLASSES
from riemannopt_dist.data.decoding import decode_image, prepare_image, to_rgb
from riemannopt_dist.data.image_ref import shortened
from riemannopt_dist.data.parquet.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from riemannopt_dist.data.parquet.labels import indices_of
from riemannopt_dist.data.uri_list import Classes, image_id_of, label_of
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import logits_of


class Batch(NamedTuple):
    """B images of a data set, on the model's device.

    `images` (B, C, H, W) are float32 in [0, 1], framed as the model frames images, and `labels` (B,) indices
    of its classes, None where the data set has none.
    """

    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor | None


class _Item(NamedTuple):
    """What a data set has of an image: its file's name or None, the picture as it comes, and its label."""

    name: str | None
    picture: Any
    label: Any


def batches(dataset: Iterable[Any] | Any, model: Classifier, batch_size: int = 8) -> Iterator[Batch]:
    """The images of a data set in order, `batch_size` at a time, of which one batch is in memory.

    The data set is torchvision's or one like it, whose items are pictures or (picture, label), or Hugging
    Face's, with columns such as image and label. A picture is Pillow's, an array (H, W) or (H, W, C), or a
    tensor (C, H, W): of 8 bits in any size, or floating-point in [0, 1] in the model's. Labels are matched by
    the names of classes, `model.network.class_names` or ILSVRC's, where the data set has names. An id is the
    image's file where it is known, else its place; of two like ones the second has its place before it.

    Raises ValueError, by the id, for what is no picture or no class of the model, and where nothing is there.
    """
    check_positive(batch_size, "batch_size")
    if not isinstance(model, Classifier):
        raise ValueError(f"model: expected a classifier that load_model gives, got {type(model).__name__}")
    if isinstance(dataset, Mapping):
        raise ValueError(f"dataset: expected one split, got those called {shortened(dataset)}")
    is_table = hasattr(dataset, "column_names") and hasattr(dataset, "cast_column")
    items = _rows(dataset) if is_table else _pairs(dataset)
    names = _column_names(dataset) if is_table else _folder_names(dataset)
    return _batches(items, names, model, batch_size)


def _batches(items: Iterator[_Item], names: Sequence[str], model: Classifier, size: int) -> Iterator[Batch]:
    device, labelling = model.mean.device, _Labelling.of(model, names)
    ids: set[str] = set()
    while chunk := list(islice(items, size)):
        batch: dict[str, tuple[Tensor, int | None]] = {}
        for item in chunk:
            place = str(len(ids))
            name = place if item.name is None else item.name
            while name in ids:
                name = f"{place}/{name}"
            ids.add(name)
            try:
                batch[name] = _tensor(item.picture, model), labelling.class_of(item.label)
            except (ValueError, OSError) as error:
                raise ValueError(f"dataset: {name}: {error}") from None
        pictures, labels = zip(*batch.values(), strict=True)
        images = torch.stack(pictures).to(device)
        check_images(images)
        known = None if None in labels else torch.tensor(labels, device=device)
        if known is None and any(label is not None for label in labels):
            raise ValueError(f"dataset: of {shortened(batch)} some have a label and others have none")
        yield Batch(tuple(batch), images, known)
    if not ids:
        raise ValueError("dataset: expected at least one image, it is empty")


@dataclass(frozen=True)
class _Labelling:
    """Which class of a model a data set's labels mean.

    `indices` has those of the classes that the data set names, `own` the model's names or how many it has,
    None for ILSVRC's, and `classes` their number.
    """

    names: Sequence[str]
    indices: Sequence[int | None]
    own: Classes
    classes: int

    @classmethod
    def of(cls, model: Classifier, names: Sequence[str]) -> "_Labelling":
        """For the classes `names` of a data set, none where it does not name them."""
        classes = model.classes or logits_of(model, model.mean.new_zeros(1, *model.input_shape)).shape[1]
        told = getattr(model.network, "class_names", None)
        own = tuple(map(str, told)) if told is not None else None if classes == CLASSES else classes
        return cls(names, indices_of(names, own, "dataset"), own, classes)

    def class_of(self, label: Any) -> int | None:
        """The class that a label means, None of None. Raises ValueError where it means none."""
        if label is None:
            return None
        if np.ndim(label) == 0 and hasattr(label, "item"):
            label = label.item()
        if self.names and isinstance(label, int):
            index, reason = self._named(label)
        else:
            index, reason = label_of(label if isinstance(label, int | float) else str(label), self.own)
        if index is not None and index >= self.classes:
            index, reason = None, f"label {label}: the model has classes 0 to {self.classes - 1}"
        if index is None:
            raise ValueError(
                f"{reason} (model.network.class_names tells the names of the model's; where there are no "
                "labels, give images alone)"
            )
        return index

    def _named(self, label: int) -> tuple[int | None, str | None]:
        """The class of a label that counts the data set's names, or why it means none."""
        if not 0 <= label < len(self.names):
            return None, f"label {label}: the data set names classes 0 to {len(self.names) - 1}"
        return self.indices[label], f"class {self.names[label]!r} is none of the model's"


def _pairs(dataset: Any) -> Iterator[_Item]:
    """The items of a data set of torchvision's kind."""
    is_listed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    items = (dataset[place] for place in range(len(dataset))) if is_listed else iter(dataset)
    for place, item in enumerate(items):
        if isinstance(item, Mapping):
            yield _row(item, _file(dataset, place))
            continue
        picture, label, *_ = (*item, None, None) if isinstance(item, tuple | list) else (item, None)
        yield _Item(_file(dataset, place), picture, label)


def _rows(dataset: Any) -> Iterator[_Item]:
    """The rows of a data set of Hugging Face's kind, with pictures as files unless it transforms them."""
    features = dataset.features or {}
    column = next((name for name in IMAGE_COLUMNS if hasattr(features.get(name), "decode_example")), None)
    if column is not None and getattr(dataset, "format", {}).get("type") != "custom":
        labels = [name for name in LABEL_COLUMNS if name in features][:1]
        dataset = dataset.select_columns([column, *labels])
        dataset = dataset.cast_column(column, type(features[column])(decode=False))
    for row in dataset:
        yield _row(row)


def _row(row: Mapping[str, Any], name: str | None = None) -> _Item:
    """The picture and label of a row. Raises ValueError for one without a picture."""
    column = next((column for column in (*IMAGE_COLUMNS, "pixel_values") if column in row), None)
    if column is None:
        raise ValueError(f"dataset: expected a column image, found {shortened(row) or 'none'}")
    picture, label = row[column], next((row[column] for column in LABEL_COLUMNS if column in row), None)
    path = picture.get("path") if isinstance(picture, Mapping) else None
    return _Item(image_id_of(path) if path else name, picture, label)


def _column_names(dataset: Any) -> Sequence[str]:
    features = dataset.features or {}
    column = next((name for name in LABEL_COLUMNS if name in features), "")
    return list(getattr(features.get(column), "names", None) or ())


def _folder_names(dataset: Any) -> Sequence[str]:
    """Those of torchvision's `classes`, of which each may be several names."""
    names = getattr(_whole(dataset, 0)[0], "classes", ())
    return [", ".join(name) if isinstance(name, tuple | list) else str(name) for name in names]


def _file(dataset: Any, place: int) -> str | None:
    """The file of an image below its folder, as torchvision's folders tell it; None where it is not told."""
    whole, place = _whole(dataset, place)
    samples = getattr(whole, "samples", None)
    if samples is None or not isinstance(samples[place][0], str):
        return None
    path, root = Path(samples[place][0]), Path(getattr(whole, "root", ""))
    return image_id_of(str(path.relative_to(root) if path.is_relative_to(root) else path))


def _whole(dataset: Any, place: int) -> tuple[Any, int]:
    """The data set that a torch `Subset` is a part of, and the place in it."""
    while hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        place = dataset.indices[place] if len(dataset.indices) else place
        dataset = dataset.dataset
    return dataset, place


def _tensor(picture: Any, model: Classifier) -> Tensor:
    """A picture as the model wants it, (C, H, W). Raises ValueError for what is none."""
    if isinstance(picture, Mapping):
        content = picture.get("bytes")
        picture = Path(picture["path"]).read_bytes() if content is None else content
    if isinstance(picture, bytes):
        return prepare_image(decode_image(picture), *model.framing)
    if isinstance(picture, Image.Image):
        return prepare_image(to_rgb(picture), *model.framing)
    if isinstance(picture, np.ndarray):
        picture = torch.from_numpy(np.array(np.atleast_3d(picture))).permute(2, 0, 1)
    if not isinstance(picture, Tensor):
        raise ValueError(
            f"expected a picture of Pillow's, an array or a tensor, got {type(picture).__name__}"
        )
    if picture.dtype == torch.uint8 and picture.ndim == 3:
        pixels = picture.permute(1, 2, 0).cpu().numpy()
        return _tensor(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), model)
    if not picture.is_floating_point() or tuple(picture.shape) != model.input_shape:
        raise ValueError(
            f"expected 8 bits a pixel, or floating-point values of shape {model.input_shape}, got "
            f"{picture.dtype} of shape {tuple(picture.shape)}: without a transform pictures are framed here"
        )
    check_range(picture)
    return picture.float()
