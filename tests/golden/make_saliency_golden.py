"""Makes guided_ig.npz and fixed_paths.npz: attributions by PAIR's `saliency` 0.2.1, which needs an old NumPy.

python -m venv /tmp/pair && /tmp/pair/bin/pip install "numpy<2" "saliency==0.2.1"
/tmp/pair/bin/python tests/golden/make_saliency_golden.py .venv/bin/python

The interpreter named last is the project's own, with PyTorch: it runs this file as a server of gradients.
"""

import io
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np

HERE = Path(__file__).parent
GUIDED, FIXED = HERE / "guided_ig.npz", HERE / "fixed_paths.npz"
CLASSIFY = -1  # in place of a target: answer with the predicted classes

GUIDED_CASES = [*product((16, 64), (0.1, 0.25, 0.5), (0.02, 0.1, 1.0))]  # steps, fraction, max_dist
UNEVEN_CASES = [(16, 0.25, 0.02), (16, 0.5, 0.1)]
PHOTOS = ("chelsea", "coffee")
SIZE = 224


def send(stream: BinaryIO, *arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    stream.write(len(buffer.getvalue()).to_bytes(8, "big") + buffer.getvalue())
    stream.flush()


def receive(stream: BinaryIO) -> list[np.ndarray]:
    """The arrays sent at the other end, none once it has closed."""
    length = int.from_bytes(stream.read(8), "big")
    return [*np.load(io.BytesIO(stream.read(length))).values()] if length else []


def serve(name: str) -> None:
    """Answer requests (points (N, H, W, 3), target) on standard input with the probability's gradients."""
    import torch

    if name == "small":
        layers = (
            torch.nn.Conv2d(3, 4, 3, padding=1),
            torch.nn.Softplus(),
            torch.nn.Flatten(),
            torch.nn.Linear(256, 5),
        )
        model = torch.nn.Sequential(*layers).double()
        with np.load(GUIDED) as golden:
            model.load_state_dict({key: torch.from_numpy(golden[key]) for key in model.state_dict()})
        dtype = torch.float64
    else:
        from riemannopt_dist.models.loading import load_model

        model, dtype = load_model(name), torch.float32
    while request := receive(sys.stdin.buffer):
        points, target = request
        inputs = torch.from_numpy(points).permute(0, 3, 1, 2).to(dtype).contiguous().requires_grad_()
        probabilities = model(inputs).softmax(dim=1)
        if target == CLASSIFY:
            send(sys.stdout.buffer, probabilities.argmax(dim=1).numpy())
        else:
            (gradients,) = torch.autograd.grad(probabilities[:, int(target)].sum(), inputs)
            send(sys.stdout.buffer, gradients.permute(0, 2, 3, 1).contiguous().numpy())


class Model:
    """The server behind the function that `saliency` calls."""

    def __init__(self, python: str, name: str) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, points: np.ndarray, target: int) -> np.ndarray:
        send(self.process.stdin, points, np.array(target))
        return receive(self.process.stdout)[0]

    def __call__(self, points: np.ndarray, call_model_args: int, expected_keys: list[str]) -> dict:
        return {expected_keys[0]: self.ask(np.asarray(points), call_model_args)}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Partition:
    """Edges b_1 … b_n in place of a number of steps: PAIR's (k + 1) / steps becomes b_{k+1}."""

    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges

    def __index__(self) -> int:
        return len(self.edges)

    def __rtruediv__(self, step: float) -> float:
        return float(self.edges[int(step) - 1])


def make_guided(python: str) -> None:
    from saliency.core import GuidedIG

    rng = np.random.default_rng(3)
    arrays = {
        "0.weight": rng.normal(size=(4, 3, 3, 3)) * 0.6,
        "0.bias": rng.normal(size=4) * 0.3,
        "3.weight": rng.normal(size=(5, 256)) * 0.3,
        "3.bias": rng.normal(size=5) * 0.1,
        "images": rng.random((2, 3, 8, 8)),
        "baselines": np.stack([np.zeros((3, 8, 8)), rng.random((3, 8, 8))]),
        "targets": np.array([2, 0]),
        "uneven": np.append(np.sort(rng.random(15)), 1.0),
    }
    arrays["images"][0, :, 2, 3:5] = 0  # features that equal their baseline
    np.savez_compressed(GUIDED, **arrays)
    model = Model(python, "small")

    def maps(steps: object, fraction: float, max_dist: float) -> np.ndarray:
        results = [
            GuidedIG().GetMask(
                image.transpose(1, 2, 0),
                model,
                int(target),
                baseline.transpose(1, 2, 0),
                x_steps=steps,
                fraction=fraction,
                max_dist=max_dist,
            )
            for image, baseline, target in zip(
                arrays["images"], arrays["baselines"], arrays["targets"], strict=True
            )
        ]
        return np.stack(results).transpose(0, 3, 1, 2)

    arrays["cases"] = np.array(GUIDED_CASES)
    arrays["maps"] = np.stack([maps(*case) for case in GUIDED_CASES])
    arrays["uneven_cases"] = np.array(UNEVEN_CASES)
    uneven = Partition(arrays["uneven"])
    arrays["uneven_maps"] = np.stack([maps(uneven, *case[1:]) for case in UNEVEN_CASES])
    model.close()
    np.savez_compressed(GUIDED, **arrays)


def photo(name: str) -> np.ndarray:
    """The central square of a scikit-image photo, (SIZE, SIZE, 3) of 8 bits."""
    from skimage import data, transform

    image = getattr(data, name)()
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return np.round(255 * transform.resize(square, (SIZE, SIZE), anti_aliasing=True)).astype(np.uint8)


def make_fixed(python: str) -> None:
    from saliency.core import BlurIG, IntegratedGradients

    photos = np.stack([photo(name) for name in PHOTOS])
    model = Model(python, "efficientnet_lite0")
    targets = model.ask(photos / 255, CLASSIFY)
    ig, blur_ig = [], []
    for image, target in zip(photos / 255, targets, strict=True):
        ig.append(IntegratedGradients().GetMask(image, model, int(target), x_steps=25, batch_size=5))
        blur_ig.append(BlurIG().GetMask(image, model, int(target), steps=20, batch_size=5))
    model.close()
    np.savez_compressed(
        FIXED,
        photos=photos,
        targets=targets,
        ig=np.sum(ig, axis=-1).astype(np.float32),
        blur_ig=np.sum(blur_ig, axis=-1).astype(np.float32),
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        make_guided(sys.argv[1])
        make_fixed(sys.argv[1])
