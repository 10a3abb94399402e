"""What became of a run's inputs."""

import pyarrow as pa
import pyarrow.compute as pc

IMAGES = "images.parquet"


def inputs_sentence(images: pa.Table) -> str:
    """How many of the inputs in images.parquet were left out, and why."""
    unreadable = len(images) - images["error"].null_count
    used = pc.sum(images["selected"]).as_py() or 0
    wrong = pc.and_(pc.invert(images["selected"]), pc.not_equal(images["label"], images["prediction"]))
    others = pc.sum(pc.fill_null(wrong, False)).as_py() or 0
    rest = len(images) - unreadable - used - others
    chosen = f", {rest} by the configuration's select and min_probability" if rest else ""
    return (
        f"{len(images)} inputs: {used} usable, {unreadable} left out because they cannot be read or have no "
        f"valid label, {others} because the model sees another class in them{chosen}"
    )
