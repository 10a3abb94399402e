"""Sanity checks (Adebayo et al., NeurIPS 2018): a map has to change with the model, and with the class.

A map that stays when the model's parameters are replaced by chance, layer by layer from the top, explains the
image rather than the model; one that is the same for another class explains no class. Maps are compared by
the rank correlation of their channel sums, signs and all.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images, check_positive
from riemannopt_dist.metrics.insertion import check_maps
from riemannopt_dist.metrics.reference import rank_correlation
from riemannopt_dist.metrics.seeds import content_seeds
from riemannopt_dist.objective import Objective, logits_of

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Makes maps (B, C, H, W) from a model, images (B, C, H, W) and targets (B,)."""
ALIKE = 0.5
"""The mean rank correlation above which maps count as the same."""


@dataclass(frozen=True, eq=False)
class Sameness:
    """How alike maps are to the model's own: `similarity`, a rank correlation in [−1, 1], float64.

    After the randomisation of each of L `layers`, from the top, it is (L, B); of another class it is (1, B),
    and `layers` is empty. NaN where a map is constant.
    """

    similarity: Tensor
    layers: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the maps have changed: in the end they are alike by no more than `ALIKE` on average."""
        return bool(self.similarity[-1].nanmean() <= ALIKE)


def randomisation_check(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    explain: Explain,
    *,
    looks: int | None = None,
    seed: int = 0,
) -> Sameness:
    """How alike maps stay while the model's layers are randomised from the top down, one after another.

    `explain` makes the maps, such as `lambda model, images, targets: integrated_gradients(model, images,
    targets, schedule).maps`. It is called once, and after every layer, or `looks` times on the way. Layers
    are the modules that can `reset_parameters`, in the reverse of the order in which the model has them. The
    model itself stays as it is.

    Raises ValueError for a model without such layers, images and targets that do not fit, and maps of another
    shape.
    """
    own = _own_maps(model, images, targets, explain)
    alike = {
        name: _alike(explain(randomised, images, targets), own)
        for name, randomised in _randomised(model, looks, seed)
    }
    return Sameness(torch.stack([*alike.values()]), tuple(alike))


def random_logit_check(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    explain: Explain,
    *,
    others: Tensor | None = None,
    seed: int = 0,
) -> Sameness:
    """How alike maps are to those of another class (Sixt et al., ICML 2020).

    The classes are `others` (B,), or drawn by `seed` and the images' content. Errors are those of
    `randomisation_check`.
    """
    own = _own_maps(model, images, targets, explain)
    if others is None:
        with torch.no_grad():
            classes = logits_of(model, images[:1]).shape[1]
        if classes < 2:
            raise ValueError(f"model: expected at least two classes, got {classes}")
        draws = torch.tensor([(content + seed) % (classes - 1) for content in content_seeds(images)])
        others = (targets + 1 + draws.to(targets)) % classes
    return Sameness(_alike(explain(model, images, others), own)[None])


def _own_maps(model: nn.Module, images: Tensor, targets: Tensor, explain: Explain) -> Tensor:
    check_images(images)
    Objective(model, targets).check(images)
    maps = explain(model, images, targets)
    check_maps(maps, images)
    return maps


def _randomised(model: nn.Module, looks: int | None, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """The model at each look, and the name of its layer that was randomised last.

    Chance is the host's, one stream for all layers: the same on every device, whatever is drawn between.
    """
    shown, on_host = deepcopy(model), deepcopy(model).cpu()
    layers = [(name, one) for name, one in on_host.named_modules() if hasattr(one, "reset_parameters")]
    if not layers:
        raise ValueError("model: expected layers with reset_parameters, as torch's have, found none")
    count = len(layers) if looks is None else looks
    check_positive(count, "looks")
    seen = {-(-len(layers) * look // count) for look in range(1, count + 1)}
    state = torch.Generator().manual_seed(seed).get_state()
    for number, (name, layer) in enumerate(reversed(layers), start=1):
        with torch.random.fork_rng([]):
            torch.set_rng_state(state)
            layer.reset_parameters()
            state = torch.get_rng_state()
        if number in seen:
            shown.load_state_dict(on_host.state_dict())
            yield name, shown


def _alike(maps: Tensor, own: Tensor) -> Tensor:
    """The rank correlation of channel sums, (B,)."""
    check_maps(maps, own)
    return rank_correlation(*(one.sum(1, dtype=torch.float64).flatten(1) for one in (maps, own)))
