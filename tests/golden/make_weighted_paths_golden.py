"""Makes weighted_paths.npz: maps by the code of those who weight or place the samples of a path otherwise.

.venv/bin/python tests/golden/make_weighted_paths_golden.py FOLDER

FOLDER has, each from its repository on GitHub: saliencyMethods.py of chasewalker26/
Integrated-Decision-Gradients (util/attribution_methods), ImageNetSplitIG-Basic.ipynb of vivekmig/captum-1
(notebooks, branch ExpandedIG) and weighted_integrated_gradients.py of malfalasi1017/
Weighted-Integrated-Gradients. The file keeps a small network's parameters, images, and targets besides.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name("weighted_paths.npz")
SAMPLES = 24
SKIPS = "        if num_samples == 0:\n            continue\n"
"""Where the released sampling of IDG forgets to go on along the path."""
GOES_ON = "        if num_samples == 0:\n            alpha_start_value += step_size\n            continue\n"


def small_network() -> nn.Module:
    """Sure of another class at black, so that those of the images rise in the middle of the path."""
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 5), nn.Softmax(1))
    network = nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(11)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else 0.7, generator=generator)
    network[3].bias.data[1] = 9.0
    return network


def released(text: str) -> ModuleType:
    module = ModuleType("released")
    exec(compile(text, "saliencyMethods.py", "exec"), module.__dict__)
    return module


def decision_gradients(text: str, network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Positions and maps as released, and with the sampling where the paper has it."""
    made: dict[str, list[Tensor]] = {"released_points": [], "released": [], "points": [], "maps": []}
    mended = text.replace(SKIPS, GOES_ON).replace(
        "for num_samples in sample_placements_int:", "for num_samples in sample_placements_int[1:]:"
    )
    assert mended.count(GOES_ON) == mended.count("[1:]:") == 1
    for prefix, code in (("released", released(text)), ("", released(mended))):
        placed = code.getAlphaParameters

        def noted(*args: object, prefix: str = prefix, placed: Callable = placed) -> tuple[Tensor, Tensor]:
            alphas, steps = placed(*args)
            made[f"{prefix}_points".strip("_")].append(alphas.clone())
            return alphas, steps

        code.getAlphaParameters = noted
        for image, target in zip(images, targets, strict=True):
            one = image[None]
            maps = code.IDG(one, network, SAMPLES, SAMPLES, torch.zeros_like(one), "cpu", int(target))
            made[prefix or "maps"].append(maps)
    return {f"idg_{name}": torch.stack(values) for name, values in made.items()}


def left_ig(notebook: dict, network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The left part of the split at nine tenths, by the notebook's function."""

    class Sampled:
        """What the branch's IntegratedGradientsExp gives: gradients, outputs and step sizes."""

        def __init__(self, _: object) -> None:
            pass

        def attribute(self, image: Tensor, target: int, n_steps: int, **_: object) -> tuple:
            alphas = torch.arange(1, SAMPLES + 1).double() / SAMPLES
            inputs = (alphas[:, None, None, None] * image).requires_grad_()
            outputs = network(inputs)[:, target]
            (gradients,) = torch.autograd.grad(outputs.sum(), inputs)
            return (gradients,), outputs.detach(), torch.full_like(alphas, 1 / SAMPLES), None

    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (source,) = [text for text in sources if text.startswith("def split_ig")]
    scope = {"torch": torch, "IntegratedGradientsExp": Sampled, "model_conv_cuda": network}
    exec(compile(source, "notebook", "exec"), scope)
    split = [
        scope["split_ig"](network, image[None], int(target), ratio=0.9)
        for image, target in zip(images, targets, strict=True)
    ]
    assert all(place is not None for *_, place in split)
    return {"left_ig": torch.cat([left for left, *_ in split])}


def path_weighted(module: ModuleType, network: nn.Module, images: Tensor, targets: Tensor) -> dict:
    def called(inputs: list, target: int) -> tuple[np.ndarray, np.ndarray]:
        batch = torch.from_numpy(np.stack(inputs)).requires_grad_()
        outputs = network(batch)[:, target]
        (gradients,) = torch.autograd.grad(outputs.sum(), batch)
        return outputs.detach().numpy(), gradients.numpy()

    weightings = {
        "late": module.linear_late_weighting_function,
        "early": module.linear_early_weighting_function,
        "middle": module.beta22_weighting_function,
    }
    return {
        f"path_weighted_{name}": torch.from_numpy(
            np.stack(
                [
                    module.weighted_integrated_gradients(
                        image.numpy(), int(target), called, None, weighting, SAMPLES - 1
                    )[0]
                    for image, target in zip(images, targets, strict=True)
                ]
            )
        )
        for name, weighting in weightings.items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    import weighted_integrated_gradients

    torch.set_default_dtype(torch.float64)
    network = small_network()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    targets = torch.full((4,), 3)
    examples = (network, images, targets)
    notebook = json.loads((folder / "ImageNetSplitIG-Basic.ipynb").read_text())
    arrays = {
        **network.state_dict(),
        "images": images,
        "targets": targets,
        **decision_gradients((folder / "saliencyMethods.py").read_text(), *examples),
        **left_ig(notebook, *examples),
        **path_weighted(weighted_integrated_gradients, *examples),
    }
    np.savez_compressed(FILE, **{name: np.asarray(values.detach()) for name, values in arrays.items()})
