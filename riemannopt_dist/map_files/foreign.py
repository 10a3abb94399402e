"""The maps at a path, in whichever format they are."""

from pathlib import Path

from riemannopt_dist.map_files.base import ForeignMaps
from riemannopt_dist.map_files.table import READERS

ZARR = "zarr"


def foreign_maps(path: Path) -> list[ForeignMaps]:
    """The maps in a file, in a folder of files of one format, or in a Zarr group.

    Raises ValueError where there are none, or none that can be read, and for files of several formats.
    """
    kinds = _kinds(path)
    if not kinds:
        expected = ", ".join(f".{name}" for name in READERS)
        raise ValueError(f"maps: expected {expected} at {path}, found none")
    if len(kinds) > 1:
        raise ValueError(
            f"maps: expected files of one format in {path}, found .{' and .'.join(sorted(kinds))}"
        )
    ((kind, files),) = kinds.items()
    maps = [one for one in READERS[kind](path, files) if one.places]
    if not maps:
        raise ValueError(f"maps: there are none in {path}")
    return maps


def _kinds(path: Path) -> dict[str, list[Path]]:
    """The files of each format."""
    if (path / "zarr.json").is_file():
        return {ZARR: [path]}
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kind = file.suffix.lower().removeprefix(".")
        if kind in READERS and kind != ZARR:
            kinds.setdefault(kind, []).append(file)
    return kinds
