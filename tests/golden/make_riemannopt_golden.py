"""Makes riemannopt.npz: sample points by the code that the authors of arXiv 2410.04118 released.

git clone https://github.com/ShreeSinghi/RiemannOpt /tmp/RiemannOpt
.venv/bin/python tests/golden/make_riemannopt_golden.py /tmp/RiemannOpt [RUN]

The project's environment has what their utils.py imports. The file keeps the variations of single images, by
method and in float32. With RUN, a run directory of the three methods with 128 points to fit on, they are
taken from its fit/; without, they stay as they are. Those there are of EfficientNet-Lite0 on ImageNet photos.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import scipy

FILE = Path(__file__).with_name("riemannopt.npz")
INTERVALS = {  # of 16, 32, 64 and 128 points: those of Integrated Gradients have one interval less there
    "ig": (15, 16, 31, 63, 127),
    "blur_ig": (16, 32, 64, 128),
    "guided_ig": (16, 32, 64, 128),
}
IMAGES = 24


def variations_of(run: Path) -> dict[str, np.ndarray]:
    """(images, 127) for each method, of at most IMAGES images."""
    rows = ds.dataset(run / "fit", format="parquet").to_table(columns=["path", "variation"]).to_pylist()
    found = {method: [row["variation"] for row in rows if row["path"] == method] for method in INTERVALS}
    return {method: np.array(values[:IMAGES], dtype=np.float32) for method, values in found.items()}


def stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as golden:
        return {method: golden[method] for method in INTERVALS}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from utils import compute_alphas

    arrays = variations_of(Path(sys.argv[2])) if len(sys.argv) > 2 else stored()
    points = {
        f"{method}_{count}": compute_alphas(arrays[method].astype(np.float64), count)
        for method, counts in INTERVALS.items()
        for count in counts
    }
    np.savez_compressed(FILE, **arrays, **points, scipy=np.array(scipy.__version__))
