"""The labels of ILSVRC2012's validation set, which come in a file of their own."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from riemannopt_dist.data.classes import synset_ranks
from riemannopt_dist.data.files import Files, files_of, name_of
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.storage.errors import retried
from riemannopt_dist.storage.redaction import one_line

KAGGLE_HEADER = ["ImageId", "PredictionString"]
EXPECTED = (
    "expected LOC_val_solution.csv (first line ImageId,PredictionString) or "
    "ILSVRC2012_validation_ground_truth.txt (a number a line, meta.mat beside it)"
)


def with_labels(refs: Iterable[ImageRef], labels: str) -> list[ImageRef]:
    """`refs` with the labels in the file `labels`, by the images' file names without their endings.

    An image that the file does not name gets that as its reason. Raises ValueError if it names none of them,
    or is no such file.
    """
    known, name = read_labels(labels), name_of(labels)
    labelled = [_with_label(ref, known, PurePosixPath(name).name) for ref in refs]
    if all(ref.label is None for ref in labelled):
        first = labelled[0].image_id
        raise ValueError(
            f"labels: {name} names none of the images ({next(iter(known))}, …; the first is {first})"
        )
    return labelled


def _with_label(ref: ImageRef, known: Mapping[str, int], file: str) -> ImageRef:
    label = known.get(PurePosixPath(ref.image_id).stem)
    reason = f"no label in {file}" if label is None else None
    return replace(ref, label=label, reason=ref.reason or reason)


def read_labels(address: str) -> dict[str, int]:
    """The class index of each image of a label file, by the image's file name without its ending.

    The file is Kaggle's LOC_val_solution.csv, or the development kit's ILSVRC2012_validation_ground_truth.txt
    with meta.mat beside it. Raises ValueError for a file that is missing or neither of the two.
    """
    try:
        files, name = files_of(address), name_of(address)
    except ValueError as error:
        raise ValueError(f"labels: {error}") from None
    text = _content(files, name).decode("utf-8", "replace")
    first = text.split("\n", 1)[0].strip()
    if first.split(",") == KAGGLE_HEADER:
        return _kaggle(text, name)
    if first.isdecimal():
        meta = f"{name.rpartition('/')[0]}/meta.mat"
        return _ground_truth(text, name, _synsets(_content(files, meta), meta))
    raise ValueError(f"labels: {name}: {EXPECTED}, found {first[:60]!r}")


def _kaggle(text: str, name: str) -> dict[str, int]:
    """From lines such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272`; the first synset counts."""
    labels: dict[str, int] = {}
    lines = io.StringIO(text.partition("\n")[2], newline="")
    try:
        # Strictly: an unclosed quote would take in all lines below it.
        rows = list(csv.DictReader(lines, KAGGLE_HEADER, strict=True))
    except csv.Error as error:
        raise ValueError(f"labels: {name}: not a CSV file: {error}") from None
    for row in rows:
        image, prediction = (row[key] or "" for key in KAGGLE_HEADER)
        synset = prediction.split(" ", 1)[0]
        if synset not in synset_ranks():
            raise ValueError(f"labels: {name}: {image}: expected an ILSVRC synset, found {synset[:40]!r}")
        if labels.setdefault(image, synset_ranks()[synset]) != synset_ranks()[synset]:
            raise ValueError(f"labels: {name}: {image} is there twice, with different labels")
    if not labels:
        raise ValueError(f"labels: {name}: expected a line for each image after the first, found none")
    return labels


def _ground_truth(text: str, name: str, synsets: Mapping[int, str]) -> dict[str, int]:
    """Line n is the ILSVRC2012_ID of ILSVRC2012_val_n, which follows another order than the class index."""
    labels = {}
    for number, line in enumerate(text.splitlines(), start=1):
        synset = synsets.get(int(line)) if line.strip().isdecimal() else None
        if synset not in synset_ranks():
            raise ValueError(f"labels: {name}: line {number}: expected an ILSVRC2012_ID, found {line[:40]!r}")
        labels[f"ILSVRC2012_val_{number:08}"] = synset_ranks()[synset]
    return labels


def _synsets(data: bytes, name: str) -> dict[int, str]:
    """The synset of each ILSVRC2012_ID, from the development kit's meta.mat."""
    from scipy.io import loadmat  # half a second that a worker, which reads no labels, would wait for

    try:
        rows = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    # What a damaged file raises in scipy is anything.
    except Exception as error:
        raise ValueError(
            f"labels: {name}: expected a table synsets with ILSVRC2012_ID and WNID: {one_line(error)}"
        ) from error


def _content(files: Files, name: str) -> bytes:
    try:
        return retried(lambda: files.read(name), name)
    except OSError as error:
        raise ValueError(f"labels: {one_line(error)}") from None
