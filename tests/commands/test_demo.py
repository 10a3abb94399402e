"""The demo's configuration, its table on results computed by hand, and the picture of maps over a photo."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from riemannopt_dist.data.classes import class_name
from riemannopt_dist.demo.demo import demo_config, demo_table
from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.metrics.reference import REFERENCE
from riemannopt_dist.reports.figures import overlay_figure, picture
from riemannopt_dist.run.profiles import DEMO_FOLDER, read_profiles
from riemannopt_dist.run.schemas import results_schema
from riemannopt_dist.text import table_lines

ERRORS = {
    ("linear", "left", 16): 0.4,
    ("linear", "left", 32): 0.2,
    ("linear", "left", 64): 0.1,
    ("riemannopt", "right", 16): 0.2,
    ("adaptive", "rescale", 16): 0.05,
}


def results(errors: dict[tuple[str, str, int], float], method: str) -> list[dict[str, object]]:
    """Rows of four photos, one of them with a fifth of the error; RiemannOpt's is worse on the first."""
    rows = []
    for (schedule, rule, samples), error in errors.items():
        for photo, scale in enumerate((1.0, 1.2, 1.6, 0.2)):
            worse = 4 if schedule == "riemannopt" and photo == 3 else 1
            rows.append(
                {
                    "image_id": f"{photo}",
                    "target": 1,
                    "path": method,
                    "placement": schedule,
                    "estimator": rule,
                }
                | {"samples": samples, "f_input": 0.9, "f_baseline": 0.0, "gradient_evaluations": samples}
                | {"seconds": samples / 32, "reference_error": error * scale * worse}
                | {"attribution_sum": 0.9, "output_change": 0.9, "completeness_delta": 0.0}
                | {"relative_error": 0.0}
            )
    return rows


def test_the_table_says_what_results_do() -> None:
    guided = {("linear", "left", 16): 0.5, ("exact", "softmax_trapezoid", 16): 0.25}
    table = pa.Table.from_pylist(
        [*results(ERRORS, "ig"), *results(guided, "guided_ig")], results_schema([COMPLETENESS, REFERENCE])
    )
    head, equal, riemannopt, ours, *walks = demo_table(table)
    assert len(head) == len(equal) == 6
    assert equal[:2] + equal[3:] == ["IG", "equal", "16", "", "0.5"]
    assert riemannopt[0:2] == ["IG", "RiemannOpt"]
    assert riemannopt[4:] == ["3 of 4", "0.5"]
    assert ours[1] == "for each photo, Rescale rule"
    assert ours[2].startswith("0.05 [")
    assert ours[3:] == ["at least 64", "4 of 4", "0.5"]
    assert [row[:3] for row in walks] == [
        ["Guided IG", "equal", "0.50"],
        ["Guided IG", "exact bound, softmax-weighted", "0.25"],
    ]
    assert max(map(len, table_lines(demo_table(table), left=2))) <= 100


def test_the_configuration_takes_the_profiles_that_come_along() -> None:
    config = demo_config("runs/x")
    assert (config.output, config.fit.images, config.fit.profiles) == ("runs/x", 0, "demo:")
    assert demo_config("runs/x", fit=True).fit.images == 4
    elsewhere = "s3://bucket/x?region=eu-north-1"
    assert demo_config(elsewhere, fit=True).output == demo_config(elsewhere).output == elsewhere
    profiles = read_profiles("demo:", ["ig", "blur_ig", "guided_ig"])
    for name, profile in profiles.items():
        assert profile.medians is not None, name
        assert profile.images >= 10
    # Nearly all of Blur IG's path lies where nothing happens.
    blur = profiles["blur_ig"]
    late = np.array(blur.points) > 0.8
    masses = np.array(blur.magnitudes) * np.gradient(blur.points)
    assert masses[late].sum() > 0.7 * masses.sum()
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) < 30_000


def test_profiles_that_are_missing_or_none_are_named() -> None:
    with pytest.raises(ValueError, match=r"^fit.profiles: no file .*/loops.json \(expected a profile"):
        read_profiles("demo:", ["loops"])


def test_maps_over_a_photo_show_where_they_are() -> None:
    photo = np.full((40, 40, 3), 0.5)
    values = np.zeros((40, 40))
    values[5:15, 5:15], values[25:35, 25:35] = 1.0, -1.0
    figure = overlay_figure(photo[None], "title", [("IG", [("a", values), ("converged", values)])])
    axis = figure.axes[2]
    shown = axis.images[1].get_array()
    assert shown[10, 10] > 0.9
    assert shown[30, 30] < -0.9
    assert abs(shown[10, 30]) < 0.05
    data = picture(figure)
    assert data == picture(
        overlay_figure(photo[None], "title", [("IG", [("a", values), ("converged", values)])])
    )
    assert Image.open(io.BytesIO(data)).size[0] > 300


def test_classes_have_names() -> None:
    assert [class_name(index) for index in (0, 1, 1000)] == ["tench", "goldfish", "class 1000"]
