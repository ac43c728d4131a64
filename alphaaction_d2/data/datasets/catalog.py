"""Data sets in detectron2's catalogs, whose files are read when somebody asks what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

Files = TypeVar("Files")


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

    What they say for the metadata, `on_demand`, is read when it is asked for (FileNotFoundError
    where one is missing); `metadata` is known without.
    """
    DatasetCatalog.register(name, load)
    known = vars(MetadataCatalog.get(name))  # somebody may have set colours, say
    MetadataCatalog[name] = MetadataOnDemand(**known)
    MetadataCatalog.get(name).set(read=read, on_demand=on_demand, **metadata)


def read_metadata(name: str) -> None:
    """Fill the metadata of a registered data set from its files, if need be."""
    check_registered(name)
    metadata = MetadataCatalog.get(name)
    known = vars(metadata)
    if "read" in known and not known.keys() >= set(known["on_demand"]):
        known.update(known["read"]() | known)  # not by `set`, which reads once more


def files_of_kind(names: Iterable[str], kind: type[Files]) -> dict[str, Files]:
    """Give the files of those data sets that are registered with files of a kind."""
    found = {
        name: MetadataCatalog.get(name).get("files") for name in names if name in DatasetCatalog
    }
    return {name: files for name, files in found.items() if isinstance(files, kind)}


def check_registered(name: str, what: str = "data set") -> None:
    """Raise KeyError for a name that is not registered, with those of our data sets that are."""
    if name not in DatasetCatalog.list():
        ours = [x for x in DatasetCatalog.list() if "read" in vars(MetadataCatalog.get(x))]
        known = f"of this kind there are: {', '.join(ours)}"
        raise KeyError(f"{what} {name!r} is not registered; {known}")
