"""Profiles that were fitted before: of a run's schedules/, of a folder, or those that come along."""

from collections.abc import Iterable
from pathlib import Path

from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.storage.base import Storage

DEMO = "demo:"
DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "profiles"


def read_profiles(folder: str, paths: Iterable[str]) -> dict[str, Profile]:
    """The profile of every path, from <path>.json in `folder`: a path, URI or "demo:".

    A file holds a profile as `Profile.to_json` writes it, or a run's profile and schedules. Raises ValueError
    where one is missing or holds something else.
    """
    storage = Storage(DEMO_FOLDER if folder == DEMO else folder)
    return {path: _read(storage, f"{path}.json") for path in paths}


def _read(storage: Storage, name: str) -> Profile:
    try:
        fields = storage.read_json(name)
        return Profile.from_fields(fields.get("profile", fields))
    except FileNotFoundError:
        raise ValueError(
            f"fit.profiles: no file {storage.uri(name)} (expected a profile of each path in the grid)"
        ) from None
    except ValueError as error:
        raise ValueError(f"fit.profiles: {storage.uri(name)}: {error}") from None
