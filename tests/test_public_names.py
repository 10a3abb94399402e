"""The names that the package promises are what they promise, whatever else was imported before."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, types
import riemannopt_dist

def modules():
    for name in riemannopt_dist.__all__:
        found = {}
        exec(f"from riemannopt_dist import {name}", found)
        if isinstance(found[name], types.ModuleType):
            yield name

assert not [*modules()], [*modules()]
for module in pkgutil.walk_packages(riemannopt_dist.__path__, "riemannopt_dist."):
    if not module.name.startswith("riemannopt_dist.run"):
        importlib.import_module(module.name)
assert not [*modules()], [*modules()]
"""


def test_no_public_name_gives_a_module() -> None:
    """A submodule becomes an attribute of its package once it is imported, and would hide a like name."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
