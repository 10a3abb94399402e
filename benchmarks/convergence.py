"""How fast each rule's maps converge to the exact ones, on a small trained network of ReLU and max-pooling.

The truth is `exact_integrated_gradients`. Prints each schedule's order, −d log(error) / d log(gradients),
fitted over all counts, and the converged reference's error; draws errors against gradients, log-log.

    python -m benchmarks.convergence [--output convergence.png]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.methods import integrate_path
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.estimation import estimate_profile
from riemannopt_dist.quadrature.optimize import optimize_schedule
from riemannopt_dist.quadrature.rules import FITTED_RULES, RELEASED, linear_schedule
from riemannopt_dist.reports.figures import error_figure, picture
from riemannopt_dist.testing.stripes import stripes, trained_relu_net

COUNTS = [16, 32, 64, 128, 256, 512, 1024]
IMAGES = 64
RULES = [rule for rule in FITTED_RULES if rule != RELEASED]  # which equal intervals have for few counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("convergence.png"))
    options = parser.parse_args()
    model = trained_relu_net()
    fitted, classes = stripes(IMAGES, seed=3)
    profile = estimate_profile(Objective(model, classes, output="logit", internal_batch_size=1024), fitted)
    images, targets = stripes(IMAGES, seed=2)
    exact = exact_integrated_gradients(model, images, targets).maps
    cells = {
        (name, rule, count): (
            linear_schedule(count, rule)
            if name == "linear"
            else optimize_schedule(profile, count, rule, name)
        )
        for name in ("linear", "equidistribution")
        for rule in RULES
        for count in COUNTS
    }
    settings = {"output": "logit", "internal_batch_size": 1024}
    path = StraightPath.from_black(images)
    found = integrate_path(Objective(model, targets, **settings), path, list(cells.values()))
    secants = {(name, "rescale", count): cells[name, "right", count] for name, _, count in cells}
    found += [
        rescale_attribution(Objective(model, targets, **settings), path, one) for one in secants.values()
    ]
    rows = pd.DataFrame(
        {
            "path": "ig",
            "placement": name,
            "estimator": rule,
            "samples": count,
            "gradient_evaluations": count,
            "error": float(compare(result.maps, exact).error.mean()),
        }
        for (name, rule, count), result in zip([*cells, *secants], found, strict=True)
    )
    for (name, rule), group in rows.groupby(["placement", "estimator"]):
        slope, _ = np.polyfit(np.log(group["gradient_evaluations"]), np.log(group["error"]), 1)
        errors = " ".join(f"{error:.2g}" for error in group["error"])
        print(f"{name} {rule}: order {-slope:.2f}; errors at {COUNTS}: {errors}")
    for intervals in (1024, 4096, 16384):
        reference = converge(Objective(model, targets, **settings), path, intervals)
        errors = compare(reference.maps, exact).error
        print(
            f"reference of {intervals} intervals: error {errors.mean():.5f} (largest {errors.max():.5f}), "
            f"its own residual {reference.residual.mean():.5f}"
        )
    options.output.write_bytes(picture(error_figure(rows, "error"), "png"))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
