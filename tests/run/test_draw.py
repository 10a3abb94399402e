"""Which images a run fits on, and which it evaluates."""

from pathlib import Path

import numpy as np
import pytest

from riemannopt_dist.run.draw import check_enough, divided, draw, drawn_images, drawn_order, evaluated_ids
from riemannopt_dist.testing.small_world import FIT, small_config


def test_the_draw_is_seeded_disjoint_and_unbiased(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(10)]
    rows = [{"image_id": name, "selected": True} for name in ids]
    config = small_config(tmp_path, tmp_path, limit=4)
    fit, chosen = draw(rows, config)
    assert draw(rows[::-1], config) == (fit, chosen)
    assert (len(fit), len(chosen), len({*fit, *chosen})) == (FIT, 4, FIT + 4)
    counts = np.zeros(10)
    for seed in range(400):
        drawn, _ = draw(rows, small_config(tmp_path, tmp_path, seed=seed))
        counts[[ids.index(name) for name in drawn]] += 1
    # Each count is binomial(400, 0.3): mean 120, standard deviation 9.2.
    assert np.abs(counts - 120).max() < 5 * 9.2


def test_images_that_could_be_reached_later_are_drawn_after_the_others() -> None:
    first = [{"image_id": str(n), "selected": n != 5, "draw": 0} for n in range(10)]
    order = drawn_images(first, 3)
    assert order == drawn_order([str(n) for n in range(10) if n != 5], 3)
    later = [{**row, "selected": True, "draw": 1} if row["image_id"] == "5" else row for row in first]
    assert drawn_images(later, 3) == [*order, "5"]
    before = [
        {key: row[key] for key in ("image_id", "selected")} for row in first
    ]  # of a version without draws
    assert drawn_images(before, 3) == order


def test_the_first_are_fitted_on_and_at_most_as_many_as_the_limit_come_next() -> None:
    assert divided("abcde", 2, 2) == ("ab", "cd")
    assert divided("abcde", 2, None) == ("ab", "cde")
    assert divided("abcde", 0, 9) == ("", "abcde")
    assert divided("abcde", 6, 2) == ("abcde", "")


def test_who_reads_a_run_takes_the_images_that_it_drew(tmp_path: Path) -> None:
    rows = [{"image_id": f"i{n}", "selected": n != 3} for n in range(10)]
    config = small_config(tmp_path, tmp_path, limit=4)
    assert draw(rows, config)[1] == evaluated_ids(rows, config.published())


def test_too_few_images_are_told_with_where_the_others_are(tmp_path: Path) -> None:
    config = small_config(tmp_path / "here", tmp_path)
    check_enough(range(FIT + 1), config)
    with pytest.raises(
        ValueError, match=rf"^fit.images: {FIT} .*, only {FIT} of .*/here can be used, see x$"
    ):
        check_enough(range(FIT), config, ", see x")
