"""What is chosen by name: paths, estimators, placements, metrics, parts of a report. Packages add to it.

An installed package adds entries by entry points of the registry's group; `package.module:name` is looked up
where it is. A built-in entry may be the address of a module's value, which is imported when it is asked for:
to know the names takes no torch.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from riemannopt_dist.choices import check_choice
from riemannopt_dist.entries import Fault

T = TypeVar("T")

_ADDRESS = re.compile(r"\w+(\.\w+)*:\w+")


def is_address(name: str) -> bool:
    """Whether a name is package.module:name."""
    return _ADDRESS.fullmatch(name) is not None


class Registry(Mapping[str, T], Generic[T]):
    """Values by name. `kind` is what they are, in words; `group` that of entry points which add to them.

    `fault` looks at what is not ours: an entry point, or what lies at an address. `renamed` tells of names
    that are no more what they are called now.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        entries: Mapping[str, T | str],
        fault: Fault,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._group = group
        self._entries = entries
        self._fault = fault
        self._renamed = renamed or {}

    def check(self, name: str, besides: tuple[str, ...] = ()) -> None:
        """Raise ValueError for a name of nothing, that is not `besides` either. An address is imported."""
        if name in self._renamed:
            raise ValueError(f"{self.kind}: {name!r} is called {self._renamed[name]}")
        if ":" in name:
            self[name]
        else:
            check_choice(name, (*besides, *self), self.kind)

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            entry = self._entries[name]
            return cast(T, self._imported(name, entry) if isinstance(entry, str) else entry)
        if name in self._added:
            return self._checked(f"{name!r}, {_origin(self._added[name])}", self._loaded(name))
        if ":" in name:
            return self._checked(repr(name), self.at(name))
        self.check(name)
        raise KeyError(name)

    def at(self, address: str) -> Any:
        """What lies at an address, whether it can be an entry or not. Raises ValueError where nothing is."""
        if not is_address(address):
            raise ValueError(f"{self.kind}: expected a name or package.module:name, got {address!r}")
        return self._imported(address, address)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._added

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries, *self._added])

    def __len__(self) -> int:
        return len(self._entries) + len(self._added)

    @cached_property
    def _added(self) -> dict[str, EntryPoint]:
        """What installed packages add; a built-in name is not theirs to take."""
        points = {point.name: point for point in entry_points(group=self._group)}
        return {name: point for name, point in points.items() if name not in self._entries}

    def _checked(self, name: str, value: Any) -> T:
        """A value that is not ours. Raises ValueError for one that is nothing that the table has."""
        if fault := self._fault(value):
            raise ValueError(f"{self.kind}: {name}: {fault}")
        return cast(T, value)

    def _imported(self, name: str, address: str) -> Any:
        module, _, attribute = address.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{self.kind}: {name!r} cannot be imported: {error}") from error

    def _loaded(self, name: str) -> Any:
        point = self._added[name]
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{self.kind}: {name!r} cannot be imported: {_origin(point)}: {error}"
            ) from error


def _origin(point: EntryPoint) -> str:
    return f"{point.value} of the package {point.dist.name if point.dist else '?'}"
