"""`riemannopt export`: a run's maps in the format of another tool."""

from typing import Annotated

import typer

from riemannopt_dist.commands.application import app
from riemannopt_dist.commands.console import errors, say
from riemannopt_dist.commands.options import (
    EstimatorOption,
    PathOption,
    PlacementOption,
    SamplesOption,
    ToleranceOption,
    chosen_cells,
)


@app.command()
def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run directory: local, s3:// or gs://.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A local folder, empty or new.")],
    kind: Annotated[str, typer.Option("--to", help="zarr, npy or hdf5 (ViRelAy's attribution databases).")],
    path: PathOption = None,
    estimator: EstimatorOption = None,
    placement: PlacementOption = None,
    samples: SamplesOption = None,
    tolerance: ToleranceOption = None,
) -> None:
    """Write a run's stored maps into a folder in another format, in float32: all, or those of chosen cells.

    zarr: a group with an array a cell. npy: a file a cell, and a JSON file with the ids of its images beside
    it. hdf5: a file a cell, with attribution, label, prediction, index and image_id.
    """
    with errors(context):
        from riemannopt_dist.map_files.export import export_maps
        from riemannopt_dist.reader import open_run

        cells = chosen_cells(path, estimator, placement, samples, tolerance)
        for name in export_maps(open_run(run), kind, destination, **cells):
            say(f"wrote {name}")
        say(f"all in {destination}")
