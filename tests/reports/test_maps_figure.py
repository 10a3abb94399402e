"""The figure of a run's maps: which image, which cells, what the captions say."""

from pathlib import Path

from riemannopt_dist.reports.maps_figure import cells_shown, maps_figure
from riemannopt_dist.reports.run_figures import figure_files
from tests.reports.small_run import data_of, make_run


def test_a_typical_image_is_drawn_with_equal_points_and_without(tmp_path: Path) -> None:
    errors = {f"p{n:02}.png": 0.1 * (n + 1) for n in range(12)}
    run = make_run(
        tmp_path, images=9, error=lambda name, cell: errors[name] / (1 if cell.placement == "linear" else 2)
    )
    data = data_of(run)
    assert cells_shown(data) == [[("ig", "left", "linear", 4, 0.0), ("ig", "left", "exact", 4, 0.0)]]
    figure = maps_figure(data)
    assert figure is not None
    evaluated = sorted(errors[name] for name in set(data.results["image_id"].to_pylist()))
    middle = evaluated[len(evaluated) // 2]
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles[0] == "ig"
    assert titles[1].startswith("4 linear left: ")
    assert float(titles[1].rpartition(" ")[2]) == round(middle, 3)
    assert float(titles[2].rpartition(" ")[2]) == round(middle / 2, 3)
    assert titles[3] == "converged"
    assert {"report/maps.png", "report/maps.svg"} <= figure_files(data).keys()


def test_a_map_without_an_error_is_drawn_with_a_dash(tmp_path: Path) -> None:
    """As rescale's is, of a run that measures completeness alone."""
    run = make_run(
        tmp_path, images=3, error=lambda name, cell: 0.5 if cell.placement == "linear" else float("nan")
    )
    figure = maps_figure(data_of(run))
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes[1:3]] == ["4 linear left: 0.500", "4 exact left: –"]


def test_a_run_without_maps_has_no_such_figure(tmp_path: Path) -> None:
    data = data_of(make_run(tmp_path, images=3, maps=None))
    assert cells_shown(data) == []
    assert maps_figure(data) is None
    assert "report/maps.png" not in figure_files(data)
