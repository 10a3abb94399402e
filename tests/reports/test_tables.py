"""The summary on a terminal: pivoted, narrow, with what is best marked."""

import numpy as np
import pandas as pd

from riemannopt_dist.reports.tables import WIDTH, summary_lines


def frame(cells: dict[tuple[str, str, str, int], tuple[float, float]]) -> pd.DataFrame:
    rows = [
        {"path": path, "estimator": estimator, "placement": placement, "samples": samples, "images": 8}
        | {"relative_error_mean": error, "insertion_mean": score}
        for (path, estimator, placement, samples), (error, score) in cells.items()
    ]
    return pd.DataFrame(rows)


DIRECTIONS = {"relative_error_mean": "lower", "insertion_mean": "higher", "not_there": "lower"}


def test_it_is_pivoted_over_counts_with_linear_first_and_the_best_marked() -> None:
    cells = {
        ("ig", "left", "exact", 16): (0.1234, 0.5),
        ("ig", "left", "linear", 16): (0.25, 0.625),
        ("ig", "left", "linear", 32): (0.125, 0.5),
        ("none", "random", "none", 0): (np.nan, 0.0625),
    }
    assert list(summary_lines(frame(cells), DIRECTIONS)) == [
        "8 images a cell; * marks the best of a count",
        "",
        "relative error mean (lower is better)",
        "  ig",
        "                    16      32",
        "    linear left   0.25   0.125*",
        "    exact left   0.123*",
        "  none",
        "",
        "insertion mean (higher is better)",
        "  ig",
        "                    16    32",
        "    linear left  0.625*  0.5*",
        "    exact left     0.5",
        "  none",
        "    random  0.0625*",
    ]


def test_it_fits_80_columns_however_many_counts_and_however_long_the_names() -> None:
    path = "guided_ig(fraction=0.5, closeness=0.0001)"
    cells = {
        (path, "softmax_trapezoid", "equidistribution", 2**n): (1.234e-5 * 3**n, 0.1) for n in range(1, 12)
    }
    lines = list(summary_lines(frame(cells), DIRECTIONS))
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(lines)
    assert all(f" {2**n} " in f"{text} " for n in range(1, 12))


def test_a_tolerance_is_a_row_of_its_own_and_what_a_terminal_obeys_is_shown() -> None:
    table = frame(
        {("a\x1b[2J", "left", "adaptive", 8): (0.5, 0.5), ("a\x1b[2J", "left", "linear", 8): (0.5, 0.5)}
    )
    table["tolerance"] = [0.05, np.nan]
    table.loc[0, "images"] = 3
    lines = list(summary_lines(table, DIRECTIONS))
    assert lines[0].startswith("3 to 8 images a cell")
    (told,) = (line for line in lines[:8] if line.startswith("    adaptive left to 0.05  "))
    assert "*" not in told  # eight is the most that it may take
    assert any(line.startswith("    linear left  ") and line.endswith("0.5*") for line in lines[:8])
    assert all(line.isprintable() for line in lines)
