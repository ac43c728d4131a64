"""Data sets in detectron2's catalogs, whose files are read when somebody asks what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog


class MetadataOnDemand(Metadata):
    """Metadata that asks `read` for what its data set's files say, when it is first wanted."""

    def __getattr__(self, key: str) -> Any:
        known = self.__dict__
        if key not in known.get("on_demand", ()):
            return super().__getattr__(key)
        try:
            # not by `set`, which asks here again
            self.__dict__.update(known["read"]() | known)
        except FileNotFoundError as error:
            raise AttributeError(f"{key}: {error}") from None
        return known[key]


def register(
    name: str,
    load: Callable[[], list[dict]],
    read: Callable[[], dict[str, Any]],
    on_demand: tuple[str, ...],
    **metadata: Any,
) -> None:
    """Register a data set whose files are read when it is first used.

    Args:
        load: makes its dicts.
        read: what its files say for the metadata; FileNotFoundError where one is missing.
        on_demand: names of that.
        metadata: what is known without files.
    """
    DatasetCatalog.register(name, load)
    known = vars(MetadataCatalog.get(name))  # somebody may have set colours, say
    MetadataCatalog[name] = MetadataOnDemand(**known)
    MetadataCatalog.get(name).set(read=read, on_demand=on_demand, **metadata)


def read_metadata(name: str) -> None:
    """Fill the metadata of a registered data set from its files, if need be.

    Raises:
        KeyError: the name is not registered.
        FileNotFoundError: a file is missing.
    """
    check_registered(name)
    metadata = MetadataCatalog.get(name)
    known = vars(metadata)
    if "read" in known and not known.keys() >= set(known["on_demand"]):
        known.update(known["read"]() | known)  # not by `set`, which reads once more


def check_registered(name: str, what: str = "data set") -> None:
    """Raise KeyError for a name that is not registered, with those of our data sets that are."""
    if name not in DatasetCatalog.list():
        known = ", ".join(
            n for n in DatasetCatalog.list() if "read" in vars(MetadataCatalog.get(n))
        )
        raise KeyError(f"{what} {name!r} is not registered; of this kind there are: {known}")
