"""The parts of a report by name: what `riemannopt report --format` may ask for.

A part makes files, by name, of a run's data. A new one is a file here, and an entry in the table.
"""

from collections.abc import Callable

from riemannopt_dist.entries import function_of
from riemannopt_dist.registry import Registry
from riemannopt_dist.reports.data import RunData

Format = Callable[[RunData], dict[str, bytes]]

_HERE = "riemannopt_dist.reports"

FORMATS: Registry[Format] = Registry(
    "format",
    "riemannopt_dist.formats",
    {
        "table1": f"{_HERE}.table_one:table_files",
        "figures": f"{_HERE}.run_figures:figure_files",
        "worst": f"{_HERE}.worst_images:worst_files",
        "html": f"{_HERE}.run_page:html_files",
    },
    function_of("data", makes="files by name"),
)
