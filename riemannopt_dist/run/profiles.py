"""Profiles that were fitted before: of a run's schedules/, of a folder, or those that come along."""

from collections.abc import Iterable
from pathlib import Path

from riemannopt_dist.profile import Profile
from riemannopt_dist.run.storage import Storage

DEMO = "demo:"
DEMO_FOLDER = Path(__file__).with_name("demo_profiles")


def read_profiles(folder: str, families: Iterable[str]) -> dict[str, Profile]:
    """The profile of every family, from <family>.json in `folder`: a path, URI or "demo:".

    A file holds a profile as `Profile.to_json` writes it, or a run's profile and schedules. Raises ValueError
    where one is missing or holds something else.
    """
    storage = Storage(DEMO_FOLDER if folder == DEMO else folder)
    return {family: _read(storage, f"{family}.json") for family in families}


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
