"""Which weights a model gets: its own, those of a local file, or random ones."""

from pathlib import Path

from riemannopt_dist.models.recipe import ModelSettings
from riemannopt_dist.models.table import source_of

RANDOM = "random"


def weights_file(name: str, weights: str | None, settings: ModelSettings) -> Path | None:
    """The file that `weights` of `load_model` names, None for those published and random ones.

    Raises ValueError where they are neither, where the file is missing, and for published ones of another
    number of classes, or channels.
    """
    if weights == RANDOM:
        return None
    path = _named_file(name, weights)
    if path is not None:
        return path
    if settings.get("num_classes") is not None and not source_of(name).takes_classes:
        raise ValueError(
            f"num_classes: {name}'s published weights have classes of their own: give others (weights)"
        )
    if settings.get("channels") == 1 and is_published(name):
        raise ValueError(f"channels: {name}'s published weights take RGB images: give others (weights)")
    return None


def is_published(name: str) -> bool:
    """Whether a model's own weights are published ones, which may have to be fetched."""
    return source_of(name).published


def _named_file(name: str, weights: str | None) -> Path | None:
    if weights is None:
        return None
    own = source_of(name).weights(name)
    if weights in own:
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        expected = f"a state dict, {', '.join([RANDOM, *own])}"
        raise ValueError(f"weights: no file {weights!r} (expected {expected})")
    return path
