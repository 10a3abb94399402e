"""Makes pic.npz: performance information curves by PAIR's `saliency` 0.2.1, which needs an old NumPy.

python -m venv /tmp/pair && /tmp/pair/bin/pip install "numpy<2" "scipy<1.14" "saliency==0.2.1" matplotlib \
    scikit-image && /tmp/pair/bin/python tests/golden/make_pic_golden.py
"""

from pathlib import Path

import numpy as np
from saliency.metrics import pic
from scipy.ndimage import gaussian_filter, zoom
from skimage import data

SIZE = 64
THRESHOLDS = [0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75]
rng = np.random.default_rng(7)


def photo(name: str) -> np.ndarray:
    """The central square of a scikit-image photo, (SIZE, SIZE, 3) of 8 bits."""
    image = getattr(data, name)()[..., :3]
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side] / 255
    smooth = gaussian_filter(square, (side / SIZE / 3, side / SIZE / 3, 0))
    small = np.stack([zoom(smooth[..., channel], SIZE / side, order=1) for channel in range(3)], axis=-1)
    return np.round(255 * small.clip(0, 1)).astype(np.uint8)


def template(image: np.ndarray) -> np.ndarray:
    """What the class that stands for this image looks for: its detail, scaled to a logit of 8."""
    detail = image / 255 - gaussian_filter(image / 255, (4, 4, 0))
    return (8 * detail / (detail * image / 255).sum()).astype(np.float32)


names = ["chelsea", "coffee", "rocket"]
images = np.stack([photo(name) for name in names])
weights = np.stack([template(image) for image in images])
noise = rng.normal(size=(3, SIZE, SIZE))
saliency = np.stack(
    [
        np.abs(noise * weights.sum(-1)),  # scattered, as gradients are
        gaussian_filter(np.abs(weights).sum(-1), (0, 3, 3)),  # in patches
        np.round(4 * rng.random((3, SIZE, SIZE))),  # five values: ties everywhere
    ]
).astype(np.float32)
masks = np.stack([rng.permutation(SIZE * SIZE).reshape(SIZE, SIZE) < SIZE * SIZE // 100 for _ in names])


def softmax(pictures: np.ndarray) -> np.ndarray:
    """Probabilities (N, 4) of pictures (N, H, W, 3): one class an image and one with logit 2."""
    logits = np.tensordot(pictures / 255, weights.astype(np.float64), axes=([1, 2, 3], [1, 2, 3]))
    logits = np.concatenate([logits, np.full((len(logits), 1), 2.0)], axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


areas, curves, predictions, first_pictures = {}, {}, {}, []
for curve in ("sic", "aic"):
    areas[curve], curves[curve], predictions[curve] = [], [], []
    for maps in saliency:
        for index, image in enumerate(images):

            def predict(pictures: np.ndarray, index: int = index, curve: str = curve) -> np.ndarray:
                probabilities = softmax(pictures)
                if curve == "sic":
                    return probabilities[:, index]
                return (probabilities.argmax(axis=1) == index).astype(float)

            result = pic.compute_pic_metric(
                image, maps[index].astype(np.float64), masks[index], predict, THRESHOLDS
            )
            areas[curve].append(result.auc)
            curves[curve].append(result.curve_y)
            predictions[curve].append(result.predictions)
            if curve == "sic" and index == 0:
                first_pictures.append(np.stack(result.blurred_images))
print(np.array(areas["sic"]).reshape(3, 3), np.array(areas["aic"]).reshape(3, 3), sep="\n")
print(np.round(np.array(predictions["sic"])[[0, 3, 6]], 3))

sic = [
    pic.PicMetricResult(np.linspace(0, 1, 1001), y, None, None, None, a)
    for a, y in zip(areas["sic"], curves["sic"], strict=True)
]
np.savez_compressed(
    Path(__file__).with_name("pic.npz"),
    images=images,
    weights=weights,
    saliency=saliency,
    masks=masks,
    sic=np.array(areas["sic"]).reshape(3, 3),
    aic=np.array(areas["aic"]).reshape(3, 3),
    sic_median=np.array(
        [pic.aggregate_individual_pic_results(sic[3 * s : 3 * s + 3], "median").auc for s in range(3)]
    ),
    sic_curves=np.array(curves["sic"]).reshape(3, 3, -1).astype(np.float32),
    predictions=np.array(predictions["sic"]).reshape(3, 3, -1),
    # Of the first image: blurred, three steps of each map, and the image itself.
    pictures=np.stack(first_pictures)[:, [0, 1, 8, 13, 14]],
)
