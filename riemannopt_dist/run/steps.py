"""The steps in which a run grew: run.json tells the configuration before each extension, the oldest first.

A step's files stay files of the run. `lacking` are the stages whose shards of that step have to be extended.
"""

from collections.abc import Mapping, Sequence
from typing import Any

EXTENDED = "extended"
"""The key of run.json under which they are."""


def steps_of(run: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The steps before the present one; none of a run that was never extended."""
    steps: Sequence[Mapping[str, Any]] = run.get(EXTENDED, ())
    return steps


def fingerprints(run: Mapping[str, Any]) -> set[str]:
    """Those under which files of the run were made."""
    return {run["fingerprint"], *(step["fingerprint"] for step in steps_of(run))}


def cuts(run: Mapping[str, Any]) -> list[int]:
    """After how many images each step ended: no shard of results has images of two steps."""
    limits = (step["config"]["limit"] for step in steps_of(run))
    return [limit for limit in limits if limit is not None]


def behind(run: Mapping[str, Any], stage: str) -> set[str]:
    """The fingerprints whose shards of a stage lack something that the run has now."""
    earlier = {step["fingerprint"] for step in steps_of(run) if stage in step["lacking"]}
    return earlier - {run["fingerprint"]}
