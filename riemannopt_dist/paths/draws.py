"""Several paths to the same images, from a baseline each, over which maps are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath

P = TypeVar("P", Path, GuidedPath)


@dataclass(frozen=True)
class Draws:
    """Two paths or more to the same B images: those of one draw of a baseline, those of the next."""

    members: tuple[Path | GuidedPath, ...]

    @property
    def images(self) -> Tensor:
        """Their ends, (B, C, H, W)."""
        return self.members[0].images


def one_or_draws(members: Sequence[P]) -> P | Draws:
    """The path, where there is one."""
    return members[0] if len(members) == 1 else Draws(tuple(members))
