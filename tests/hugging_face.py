"""A folder with a tiny image classifier, as Hugging Face's transformers writes it."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig, ViTForImageClassification, utils

NAMES = ("bird", "boat", "car")
SIDE = 32


def vit() -> ViTForImageClassification:
    """A ViT of two blocks for images of SIDE pixels, with seeded weights; its classes are NAMES."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = dict(enumerate(NAMES))
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=SIDE,
                patch_size=8,
                id2label=names,
                label2id={name: place for place, name in names.items()},
            )
        ).eval()


def saved(folder: Path, network: Any, preprocessing: dict[str, Any]) -> Path:
    """The folder with a network and how its images are prepared."""
    utils.logging.disable_progress_bar()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


PREPROCESSING = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
    "size": {"height": SIDE, "width": SIDE},
}
