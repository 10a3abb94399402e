"""Result rows by cell and image, and curves' medians, on cases that are known."""

import numpy as np
import pyarrow as pa
import pytest

from riemannopt_dist.metrics.metric import median_curve, unit_curve
from riemannopt_dist.reports.pivot import Pivot


def rows(*keys: tuple[str, str, int, float | None], values: list[float | None]) -> pa.Table:
    """Rows of image, placement, samples and tolerance, with a score and a curve each."""
    images, placements, samples, tolerances = zip(*keys, strict=True)
    return pa.table(
        {
            "image_id": pa.array(images, pa.string()),
            "path": ["ig"] * len(keys),
            "estimator": ["left"] * len(keys),
            "placement": placements,
            "samples": pa.array(samples, pa.int32()),
            "tolerance": pa.array(tolerances, pa.float64()),
            "score": pa.array(values, pa.float64()),
            "curve": pa.array([None if v is None else [v, 2 * v] for v in values], pa.list_(pa.float32())),
        }
    )


def test_cells_and_images_are_in_order_and_what_is_not_there_is_nan() -> None:
    pivot = Pivot.of(
        pa.concat_tables(
            [
                rows(("b", "linear", 16, None), ("a", "exact", 8, None), values=[1.0, 2.0]),
                rows(("b", "exact", 8, None), ("a", "adaptive", 8, 0.1), values=[None, 4.0]),
                rows(("a", "linear", 16, np.nan), values=[5.0]),
            ]
        )
    )
    assert pivot.cells == (
        ("ig", "left", "adaptive", 8, 0.1),
        ("ig", "left", "exact", 8, 0.0),
        ("ig", "left", "linear", 16, 0.0),
    )
    assert pivot.images.to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(pivot.values("score"), [[4, np.nan], [2, np.nan], [5, 1]])
    np.testing.assert_array_equal(pivot.there, [[True, False], [True, True], [True, True]])
    nothing = [np.nan, np.nan]
    np.testing.assert_array_equal(pivot.curves("curve"), [[1, 2], [2, 4], nothing, [4, 8], [5, 10]])
    assert pivot.where(placement="linear", samples=16) == [2]


def test_no_rows_are_no_cells() -> None:
    pivot = Pivot.of(rows(("a", "linear", 1, None), values=[1.0])[:0])
    assert (pivot.cells, pivot.values("score").shape, pivot.curves("curve").shape) == ((), (0, 0), (0, 0))


def test_an_image_that_is_twice_in_a_cell_is_named() -> None:
    twice = rows(*[("a", "linear", 16, None)] * 2, ("b", "linear", 16, None), values=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"^results: a is there twice in the cell \('ig', 'left', 'linear'"):
        Pivot.of(twice)


def test_curves_of_two_lengths_have_no_median() -> None:
    table = rows(("a", "linear", 1, None), ("b", "linear", 1, None), values=[1.0, 2.0])
    uneven = table.set_column(7, "curve", pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))
    with pytest.raises(ValueError, match=r"^curve: expected curves of one length, found 1 and 2"):
        Pivot.of(uneven).curves("curve")


@pytest.mark.parametrize("count", [1, 2, 7, 60])
@pytest.mark.parametrize("points", [7, 1000])
def test_the_median_of_many_lines_is_that_of_each(count: int, points: int) -> None:
    """Knots in any order, several between two points, on points, at the ends, and one above another."""
    rng = np.random.default_rng(count)
    x, y = rng.random((2, count, 12))
    x[:, 0], x[:, 1], x[:, 2], x[:, 3] = 0.0, 1.0, x[:, 4], np.round(x[:, 3], 2)
    for precision in (np.float64, np.float32):
        lines = [
            unit_curve(*line, points) for line in zip(x.astype(precision), y.astype(precision), strict=True)
        ]
        found = median_curve(x.astype(precision), y.astype(precision), points)
        within = 1e-15 if precision is np.float64 else 1e-6
        np.testing.assert_allclose(found, np.median(lines, axis=0), rtol=0, atol=within)
