"""Where a run's numbers come from: versions, weights, configuration and command."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from riemannopt_dist.reports.page.parts import Block, Facts, Listing, Note
from riemannopt_dist.text import printable


def provenance(about: Mapping[str, Any]) -> Iterator[Block]:
    """The facts in run.json, and the configuration."""
    if not about:
        yield Note("There is no run.json beside the results that tells where they come from.")
        return
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    resumed = [f"{maker['versions'].get('riemannopt-dist')}" for maker in about.get("resumed", ())]
    config = about["config"]
    facts = {
        "run": str(about["id"]),
        "fingerprint": str(about["fingerprint"]),
        "images": str(config["images"]),
        "model": f"{config['model']['name']}, weights {config['model'].get('weights') or 'as published'}",
        "weights, SHA-256": str(about["weights_digest"]),
        "model's code, SHA-256": str(about["code_digest"]),
        "versions": versions,
        "gone on with": ", ".join(resumed),
        "command": f"riemannopt evaluate --config run.yaml --output {config.get('output', 'RUN')}",
        "this page": f"riemannopt report {config.get('output', 'RUN')}",
    }
    yield Facts({name: printable(value) for name, value in facts.items() if value})
    keys = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.items())
    listing = "{\n  " + ",\n  ".join(keys) + "\n}\n"
    yield Listing("run.yaml", "The configuration, which the command takes as it is", listing)
