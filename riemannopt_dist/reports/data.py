"""What a report is made of: plain tables and values, wherever they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa


@dataclass(frozen=True, eq=False)
class RunData:
    """Result rows and their summary; the model's name, and how many images the run is to evaluate.

    `fitted` holds the profile and schedules of each path, as schedules/<path>.json has them, and `singles`
    the positions and variations of a few images of the fit subset.
    """

    results: pa.Table
    summary: pd.DataFrame
    model: str
    promised: int
    fitted: Mapping[str, Mapping[str, Any]]
    singles: Mapping[str, Sequence[Mapping[str, Any]]]
