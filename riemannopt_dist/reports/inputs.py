"""What became of a run's inputs."""

import pyarrow as pa
import pyarrow.compute as pc

IMAGES = "images.parquet"


def inputs_sentence(images: pa.Table) -> str:
    """How many of the inputs in images.parquet were left out, and why."""
    unreadable = len(images) - images["error"].null_count
    used = pc.sum(images["selected"]).as_py() or 0
    others = len(images) - unreadable - used
    return (
        f"{len(images)} inputs: {used} usable, {unreadable} left out because they cannot be read or have no "
        f"valid label, {others} because the model sees another class in them"
    )
