"""What made a table of a run, in its metadata: which run, which model, whose code and which versions."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from riemannopt_dist.run.steps import behind, fingerprints
from riemannopt_dist.storage.notes import note_of, noted

ORIGIN = b"origin"
"""The key of a table's metadata under which its origin is, as a JSON object."""
STAMPED = ("riemannopt-dist", "torch")
"""The packages whose versions every table tells."""


@dataclass(frozen=True)
class Origin:
    """The run that a table is of, by its id and fingerprint, its model, and what made it.

    That is the model's code (`code_digest` of its name), versions, and the `term` of the driver.
    """

    run: str
    fingerprint: str
    weights_digest: str
    code_digest: str
    versions: Mapping[str, str]
    term: int

    def in_table(self, table: pa.Table) -> pa.Table:
        """`table` with this origin in its metadata."""
        return noted(table, ORIGIN, self)

    def same_run(self, schema: pa.Schema) -> bool:
        """Whether a table of this schema is of the same run and model."""
        other = Origin.of(schema)
        return other is not None and (other.run, other.weights_digest) == (self.run, self.weights_digest)

    @classmethod
    def of(cls, schema: pa.Schema) -> "Origin | None":
        """The origin of a table with this schema, None where it tells none."""
        return note_of(schema, ORIGIN, cls)


def origin_now(run: Mapping[str, Any], term: int) -> Origin:
    """The origin of what a driver makes now in the run that `run`, its run.json, tells of."""
    return Origin(
        run=run["id"],
        fingerprint=run["fingerprint"],
        weights_digest=run["weights_digest"],
        code_digest=code_digest(run["config"]["model"]["name"]),
        versions={name: version(name) for name in STAMPED},
        term=term,
    )


def foreign(schema: pa.Schema, run: Mapping[str, Any]) -> str | None:
    """Why a table of this schema is not of the run that `run` tells of, None if it is."""
    origin = Origin.of(schema)
    if origin is None:
        return "it does not tell which run wrote it"
    if origin.weights_digest != run["weights_digest"]:
        return (
            f"of another model (weights {_short(origin.weights_digest)}, not {_short(run['weights_digest'])})"
        )
    if origin.fingerprint not in fingerprints(run):
        return f"of a run of another configuration (fingerprint {_short(origin.fingerprint)})"
    if origin.run != run["id"]:
        return f"of another run ({origin.run}, not {run['id']})"
    if origin.code_digest not in {maker["code_digest"] for maker in (run, *run.get("resumed", ()))}:
        return "of another model (its code is none that this run was made with)"
    return None


def is_of_earlier_step(schema: pa.Schema, run: Mapping[str, Any]) -> bool:
    """Whether a table of this schema, which is of the run, was made before that was extended."""
    origin = Origin.of(schema)
    return origin is not None and origin.fingerprint != run["fingerprint"]


def is_behind(schema: pa.Schema, run: Mapping[str, Any], stage: str) -> bool:
    """Whether a shard of this schema lacks what its stage has got since, as the run was extended."""
    origin = Origin.of(schema)
    return origin is not None and origin.fingerprint in behind(run, stage)


def code_digest(model: str) -> str:
    """SHA-256, in hexadecimal, of the file that a model's network is made by, see `Source`; "" without one.

    What the code of others depends on are the versions of packages.
    """
    from riemannopt_dist.models.table import source_of  # torch, which who reads a run does without

    try:
        file = source_of(model).code_file(model)
        return "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except (ImportError, OSError, ValueError):  # in a zip, say
        return ""


def _short(digest: str) -> str:
    return digest[:12]
