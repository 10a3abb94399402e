"""What the checks of common arguments refuse is wrong, and what they let pass is right."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from riemannopt_dist.arguments import check_model

RANDOM = {
    "dropout": nn.Dropout(0.5),
    "rrelu": nn.RReLU(),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True),
    "torchvision's stochastic depth": StochasticDepth(0.5, "row"),
    "timm's stochastic depth": DropPath(0.5),
    "batch normalisation": nn.BatchNorm1d(6),
}


def output(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    given = (inputs,) * 3 if isinstance(layer, nn.MultiheadAttention) else (inputs,)
    found = layer(*given)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("layer", RANDOM.values(), ids=RANDOM)
def test_layers_that_differ_between_calls_or_batches_are_refused_in_training(layer: nn.Module) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 6, 4)
    model = nn.Sequential(nn.Identity(), layer)
    assert not torch.equal(output(layer.train(), inputs)[:32], output(layer, inputs[:32]))
    with pytest.raises(ValueError, match=r"model: expected evaluation mode .*, layer '1' is"):
        check_model(model)
    torch.testing.assert_close(output(layer.eval(), inputs)[:32], output(layer, inputs[:32]))
    check_model(model)


def test_normalisation_by_the_batch_is_refused_in_any_mode() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for mode in (True, False):
        assert not torch.allclose(norm.train(mode)(inputs)[:2], norm(inputs[:2]))
        with pytest.raises(ValueError, match="model: expected running statistics, layer '0' takes those of"):
            check_model(nn.Sequential(norm))


def test_a_model_without_such_layers_passes_in_training_mode() -> None:
    attention = nn.MultiheadAttention(4, 2)
    check_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), attention).train())
