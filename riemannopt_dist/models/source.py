"""What a source of models declares of itself, so that everything else can pick it up from their table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from riemannopt_dist.models.recipe import Recipe


@dataclass(frozen=True)
class Source:
    """Where the models of one kind of name come from.

    `takes` tells whether a name is of this kind. `recipe` is what a name asks for with the weights that are
    chosen, None where there is no such model. `names` are those suggested for unknown ones.

    Its models' own weights are `published`, and may have to be fetched, or else they come with the model.
    `weights` are what they are called, where a model has several. Where it `takes_classes`, a number of
    classes may be told without other weights, and the own ones are checked against it. `code_file` is the
    file that a model's network is made by, None where that is a package's.
    """

    takes: Callable[[str], bool]
    recipe: Callable[[str, str | None], Recipe | None]
    published: bool
    names: Callable[[], Sequence[str]] = tuple
    weights: Callable[[str], Sequence[str]] = lambda name: ()
    takes_classes: bool = False
    code_file: Callable[[str], Path | None] = lambda name: None
