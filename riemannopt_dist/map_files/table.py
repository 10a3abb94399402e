"""The formats of map files by name: to which maps are exported, and from which those of others are read."""

from riemannopt_dist.entries import function_of
from riemannopt_dist.map_files.base import Exporter, MapReader
from riemannopt_dist.registry import Registry

_HERE = "riemannopt_dist.map_files"

EXPORTERS: Registry[Exporter] = Registry(
    "export",
    "riemannopt_dist.exporters",
    {"zarr": f"{_HERE}.zarr:write", "npy": f"{_HERE}.npy:write", "hdf5": f"{_HERE}.hdf5:write"},
    function_of("maps", "folder", makes="files"),
)
"""By the name of the format: write maps into an empty folder."""

READERS: Registry[MapReader] = Registry(
    "map file",
    "riemannopt_dist.map_readers",
    {
        "npy": f"{_HERE}.npy:read",
        "parquet": f"{_HERE}.parquet:read",
        "h5": f"{_HERE}.hdf5:read",
        "hdf5": f"{_HERE}.hdf5:read",
        "zarr": f"{_HERE}.zarr:read",
    },
    function_of("folder", "files", makes="maps"),
)
"""By the suffix of the files; a folder with a zarr.json in it is Zarr's."""
