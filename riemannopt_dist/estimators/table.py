"""The estimators by name: what a configuration may ask for. A new one is a file, and an entry here.

An entry says what goes together without torch; the mathematics is in the modules beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riemannopt_dist.entries import like
from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR, Cost, Estimator, Placed
from riemannopt_dist.paths.base import begins_at_several, paths_an_image
from riemannopt_dist.quadrature.placement.table import output_placement
from riemannopt_dist.quadrature.rules import PARTITION_RULES, intervals, linear_schedule
from riemannopt_dist.registry import Registry

if TYPE_CHECKING:
    from riemannopt_dist.attribution import Attribution
    from riemannopt_dist.choices import Output
    from riemannopt_dist.estimators.passes import Sums
    from riemannopt_dist.models.classifier import Classifier
    from riemannopt_dist.objective import Objective
    from riemannopt_dist.paths.base import Path, PathFamily
    from riemannopt_dist.paths.draws import Draws
    from riemannopt_dist.paths.guided import GuidedPath

WALKED_RULES = ("left", "trapezoid")
"""The rules that the steps of a guided walk have."""
ONLY_PLACEMENTS = {"gauss_legendre": (LINEAR, "equidistribution"), "mean": (LINEAR,)}
"""The rules that are more than a partition, and where their points can be, what suits them best last."""


class _Sampled:
    """What the estimators have in common that are sums of the same samples."""

    tends_to_integral = True
    takes_tolerance = False

    @property
    def sums(self) -> type[Sums]:
        """How the samples are added up."""
        raise NotImplementedError

    @property
    def early(self) -> tuple[float, ...]:
        """As its sums have them; none where a derived estimator has no sums."""
        return () if self.sums is None else self.sums.early

    def check(self, model: Classifier) -> None:
        """Any model with a gradient will do."""

    def cost(self, path: PathFamily, placed: Placed, output: Output, at_once: int) -> Cost:
        """What the path has to sample, and f where points by the output ask for it."""
        if placed.by_output is None:
            return Cost(*path.sampling([placed.fixed], self.early))
        asked = placed.by_output.asked
        gradients, ends = path.sampling([placed.by_output.schedule(asked)], self.early)
        ends = 2 if placed.by_output.placement.partial else ends  # at most
        return Cost(gradients, ends + len(asked))

    def attribute(self, objective: Objective, path: Path | GuidedPath, placed: Placed) -> Attribution:
        """A sum from one pass along the path, or one for each image."""
        from riemannopt_dist.estimators.by_output import sums_by_output
        from riemannopt_dist.estimators.passes import sums_along

        if placed.by_output is not None:
            return sums_by_output(objective, path, self.sums, placed.by_output)
        (result,) = sums_along(path, objective, [(self.sums, placed.fixed)])
        return result


@dataclass(frozen=True)
class Riemann(_Sampled):
    """A Riemann sum under the rule that it is called after."""

    name: str

    @property
    def suits(self) -> str:
        """The placement by a profile that suits it best."""
        return ONLY_PLACEMENTS.get(self.name, ("exact",))[-1]

    @property
    def sums(self) -> type[Sums]:
        """Σ_k w_k g(α_k)."""
        from riemannopt_dist.estimators.riemann import RiemannSums

        return RiemannSums

    def rule(self, path: PathFamily) -> str:
        """Its name."""
        return self.name

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """A walk has the left and the trapezoid rule; some rules have placements of their own."""
        if placement == ADAPTIVE:
            return f"the placement {ADAPTIVE} is for softmax_trapezoid and rescale"
        placements = ONLY_PLACEMENTS.get(self.name)
        if placements is not None and placement not in placements:
            return f"expected the placement {' or '.join(placements)}, got {placement}"
        return (
            _walk_refusal(path, self.name, WALKED_RULES)
            or _output_refusal(path, placement, samples)
            or _count_refusal(self.name, placement, samples)
        )


@dataclass(frozen=True)
class LeftIg(_Sampled):
    """Left-IG (Miglani et al., 2020): the sum under the rule right before the output saturates."""

    name: str = "left_ig"
    tends_to_integral = False

    @property
    def sums(self) -> type[Sums]:
        """Σ_k w_k g(α_k) until f has made nine tenths of its way."""
        from riemannopt_dist.estimators.left_ig import LeftSums

        return LeftSums

    def rule(self, path: PathFamily) -> str:
        """As its authors have it."""
        return "right"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """A walk does not tell f at the image before it is there."""
        return _fixed_refusal(path) or Riemann("right").refusal(path, placement, samples)


@dataclass(frozen=True)
class PathWeighted(_Sampled):
    """Path-weighted IG (Kamalov et al., 2025): the trapezoid with intervals weighted by where they are."""

    name: str
    tends_to_integral = False

    @property
    def sums(self) -> type[Sums]:
        """Σ_j w(b_{j+1}) h_j (g(b_j) + g(b_{j+1})) / 2, the weights scaled to sum to 1."""
        from riemannopt_dist.estimators.path_weighted import PATH_WEIGHTED

        return PATH_WEIGHTED[self.name]

    def rule(self, path: PathFamily) -> str:
        """Both ends of each interval."""
        return "trapezoid"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """A walk does not tell how far along it is; a single interval may weigh nothing."""
        if samples < 3:
            return f"samples: {self.name} needs at least 3, for two intervals, got {samples}"
        return _fixed_refusal(path) or Riemann("trapezoid").refusal(path, placement, samples)


@dataclass(frozen=True)
class Idg(_Sampled):
    """Integrated Decision Gradients (Walker et al., AAAI 2024): gradients weighted by the output's rise."""

    name: str = "idg"
    tends_to_integral = False

    @property
    def sums(self) -> type[Sums]:
        """Σ_k w_k g(α_k) (f_k − f_{k−1}) / (α_k − α_{k−1})."""
        from riemannopt_dist.estimators.idg import IdgSums

        return IdgSums

    def rule(self, path: PathFamily) -> str:
        """As its authors have it."""
        return "left"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """Slopes take two samples; a walk does not tell f at the one before."""
        if samples < 2:
            return f"samples: the slopes of {self.name} need at least 2, got {samples}"
        if output_placement(placement) is not None:
            return _fixed_refusal(path)
        return _fixed_refusal(path) or Riemann("left").refusal(path, placement, samples)


@dataclass(frozen=True)
class Idgi(_Sampled):
    """IDGI (Yang et al., CVPR 2023): each step's change of f, shared out by the squared gradients.

    Those of the step's start with the rule left, as its authors have it, of its end, or of both.
    """

    name: str
    placing: str
    tends_to_integral = False  # but to another one, of which no converged map is made

    @property
    def sums(self) -> type[Sums]:
        """Σ_j (f_{j+1} − f_j) g_j² / Σ g_j²."""
        from riemannopt_dist.estimators.idgi import IdgiSums

        return IdgiSums

    def rule(self, path: PathFamily) -> str:
        """That of its steps."""
        return self.placing

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """As for the rule's Riemann sum."""
        return Riemann(self.placing).refusal(path, placement, samples)


@dataclass(frozen=True)
class SoftmaxTrapezoid(_Sampled):
    """Both ends of each interval, weighted by the softmax's rise between them.

    With the placement adaptive, each image's intervals are bisected where its own map is least certain.
    """

    name: str = "softmax_trapezoid"
    takes_tolerance = True

    @property
    def sums(self) -> type[Sums]:
        """Σ (w_a G_a + w_b G_b) (γ(b) − γ(a))."""
        from riemannopt_dist.estimators.softmax_trapezoid import SoftmaxTrapezoidSums

        return SoftmaxTrapezoidSums

    def rule(self, path: PathFamily) -> str:
        """No gradient at a path's start is needed; a guided walk has one there all the same."""
        return "trapezoid" if path.walked else "right"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """Points per image need a path that is known beforehand, and both of its ends."""
        if placement == ADAPTIVE:
            return _adaptive_refusal(path, samples)
        return _output_refusal(path, placement, samples) or _count_refusal(
            self.rule(path), placement, samples
        )

    def cost(self, path: PathFamily, placed: Placed, output: Output, at_once: int) -> Cost:
        """The schedule's points; or an image's own, and for a probability whether it is flat at the start."""
        if placed.schedule is not None or placed.by_output is not None:
            return super().cost(path, placed, output, at_once)
        return Cost(placed.samples, int(output == "probability"))

    def attribute(self, objective: Objective, path: Path | GuidedPath, placed: Placed) -> Attribution:
        """A sum on the schedule, or on each image's own points."""
        from riemannopt_dist.estimators.adaptive import refined_where_needed

        if placed.schedule is not None or placed.by_output is not None:
            return super().attribute(objective, path, placed)
        return refined_where_needed(objective, path, placed)


@dataclass(frozen=True)
class Rescale:
    """DeepLIFT's Rescale rule over each interval: one backward pass through the network's mean Jacobians.

    With the placement adaptive, the intervals are each image's own.
    """

    name: str = "rescale"
    suits = "roughness"
    sums = None
    early = ()
    tends_to_integral = True
    complete = True
    takes_tolerance = False

    def check(self, model: Classifier) -> None:
        """Raise ValueError, by its name, for an operation whose mean Jacobian is not known."""
        from riemannopt_dist.estimators.rescale import check_rescale

        check_rescale(model)

    def rule(self, path: PathFamily) -> str:
        """Only the partition matters."""
        return "right"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """All samples go through the network before the first gradient: no walk is known by then."""
        if path.walked:
            return f"{path.label} is found by its gradients, step by step: the rule needs the path before"
        if output_placement(placement) is not None:
            return f"the placement {placement} is for sums of gradients"
        return _adaptive_refusal(path, samples) if placement == ADAPTIVE else None

    def cost(self, path: PathFamily, placed: Placed, output: Output, at_once: int) -> Cost:
        """A sample more than intervals, of each micro-batch."""
        from riemannopt_dist.estimators.rescale import samples_taken

        if placed.schedule is None:
            return Cost(placed.samples + 1)
        return Cost(samples_taken(len(placed.schedule), at_once))

    def attribute(self, objective: Objective, path: Path | GuidedPath, placed: Placed) -> Attribution:
        """A sum over the schedule's intervals, or over each image's own."""
        from riemannopt_dist.estimators.rescale import rescaled_where_placed

        return rescaled_where_placed(objective, path, placed)


@dataclass(frozen=True)
class ExpectedGradients:
    """A Riemann sum whose samples take turns on the paths from several baselines (Erion et al., 2021)."""

    name: str = "expected_gradients"
    sums = None
    early = ()
    tends_to_integral = True
    takes_tolerance = False
    takes_draws = True

    def check(self, model: Classifier) -> None:
        """Any model with a gradient will do."""

    def rule(self, path: PathFamily) -> str:
        """That of equal weights, no sample of which lies at an end."""
        return "midpoint"

    def refusal(self, path: PathFamily, placement: str, samples: int) -> str | None:
        """It needs paths that are known beforehand, from several baselines."""
        if path.walked or not begins_at_several(path):
            return (
                f"expected a path from several baselines, such as {{path: ig, baseline: noise, draws: 50}}, "
                f"got {path.label}"
            )
        if output_placement(placement) is not None:
            return f"the placement {placement} is by the output along one path"
        return Riemann("midpoint").refusal(path, placement, samples)

    def cost(self, path: PathFamily, placed: Placed, output: Output, at_once: int) -> Cost:
        """The schedule's points, whatever the draws; f at both ends of the way, and at the baselines used."""
        samples = len(placed.fixed)
        return Cost(samples, 2 + min(samples, paths_an_image(path)))

    def attribute(self, objective: Objective, path: Draws, placed: Placed) -> Attribution:
        """A sum whose samples take turns. Raises ValueError for paths that are not straight."""
        from riemannopt_dist.estimators.expected_gradients import expected_gradients
        from riemannopt_dist.paths.straight import StraightPath

        lines = [one for one in path.members if isinstance(one, StraightPath)]
        if len(lines) < len(path.members):
            raise ValueError("path: expected_gradients needs straight lines")
        return expected_gradients(objective, lines, placed.fixed)


def _walk_refusal(path: PathFamily, rule: str, rules: Sequence[str]) -> str | None:
    if path.walked and rule not in rules:
        return f"a guided walk has the rules {' and '.join(rules)}, not {rule}"
    return None


def _fixed_refusal(path: PathFamily) -> str | None:
    return (
        f"{path.label} is found by its gradients, step by step: it is not known before"
        if path.walked
        else None
    )


def _output_refusal(path: PathFamily, placement: str, samples: int) -> str | None:
    """Why sums of the whole path have no points by the output there; None for another placement."""
    chosen = output_placement(placement)
    if chosen is None:
        return None
    if chosen.partial:
        return f"the placement {placement}, which leaves out some of the path, is for idg"
    if path.walked:
        return f"{path.label} is found by its gradients, step by step: it has no points per image"
    return None


def _adaptive_refusal(path: PathFamily, samples: int) -> str | None:
    if path.walked:
        return f"{path.label} is found by its gradients, step by step: it has no points per image"
    return None if samples >= 2 else f"samples: the placement {ADAPTIVE} needs at least 2, got {samples}"


def _count_refusal(rule: str, placement: str, samples: int) -> str | None:
    """What `samples` lacks to be a count under a rule."""
    try:
        if placement == LINEAR:
            linear_schedule(samples, rule)
        elif rule in PARTITION_RULES:
            intervals(samples, rule)
    except ValueError as error:
        return str(error)
    return None


ESTIMATORS: Registry[Estimator] = Registry(
    "estimator",
    "riemannopt_dist.estimators",
    {
        **{
            name: Riemann(name)
            for name in ("left", "right", "midpoint", "trapezoid", "released", "gauss_legendre", "mean")
        },
        "idgi": Idgi("idgi", "left"),
        "idgi_right": Idgi("idgi_right", "right"),
        "idgi_trapezoid": Idgi("idgi_trapezoid", "trapezoid"),
        "idg": Idg(),
        "left_ig": LeftIg(),
        "path_weighted_late": PathWeighted("path_weighted_late"),
        "path_weighted_early": PathWeighted("path_weighted_early"),
        "path_weighted_middle": PathWeighted("path_weighted_middle"),
        "softmax_trapezoid": SoftmaxTrapezoid(),
        "rescale": Rescale(),
        "expected_gradients": ExpectedGradients(),
    },
    like(Estimator),
    renamed={"end_weights": "'softmax_trapezoid' now", "secant": "'rescale' now"},
)
