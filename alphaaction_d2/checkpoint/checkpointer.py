"""Checkpoints: weights that must fit, from here or published, and the memory pool beside them."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..config import Groups
from ..formats.writing import write_atomically
from ..model_zoo.files import local_weights, warn_of_licence
from .describe import differences, part_of
from .reading import read_checkpoint
from .sources import SOURCES, convert, recognise
from .sources.source import FOREIGN_LAYER

logger = logging.getLogger(__name__)

_COUNTERS = "counters, which frozen normalisation does not keep"

# Under which a checkpoint keeps what its classes are called, and how they are grouped.
CLASS_NAMES, CLASS_GROUPS = "class_names", "class_groups"
LAST = "last_checkpoint"  # the file that names the checkpoint to resume from


class SavedBeside(Protocol):
    """Something with a file of its own beside the checkpoint: the memory pool."""

    def save(self, path: Path) -> str: ...

    def load(self, path: Path, checksum: str) -> None: ...

    def __len__(self) -> int: ...


class CheckpointMismatch(ValueError):
    """Weights that do not fit the configured model; the message names what does not."""


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The checkpoint to resume from in a folder of results; None: nothing was saved there.
    ValueError where `LAST` does not name one of those that are: a new run would write over them."""
    last, best = Path(folder, LAST), Path(folder, "model_best.pth")  # which nobody resumes from
    found = sorted({*Path(folder).glob("model_*.pth")} - {best})
    saved = sorted(found, key=lambda path: path.stat().st_mtime)
    try:
        name = last.read_text(encoding="utf-8").strip()
        reason = "is empty" if not name else f"names {name[:80]!r}, which is not in this folder"
        if name == Path(name).name and Path(folder, name).is_file():
            return str(Path(folder, name))
    except FileNotFoundError:
        if not saved:
            return None
        reason = "is missing"
    except ValueError:  # no text, or a name that no file can have
        reason = "is damaged"
    newest = f"write {saved[-1].name} into it, the newest one," if saved else "remove it"
    raise ValueError(f"{last} {reason}: {newest} to resume, or leave --resume out to begin anew")


def _some(items: list[str], most: int = 5) -> str:
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


class ActionCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which also reads published weights, can say what did not fit,
    keeps the memory pool, and survives being killed.

    The pool of `model_0000999.pth` is `model_0000999.memory`, tied to it by its checksum. Every
    file is written beside its place and moved there, in the order pool, checkpoint, `LAST`; older
    pools go last, since they are large. So at any moment `LAST` names a whole checkpoint with its
    pool.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        pool: SavedBeside | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.pool = pool

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename)
        self._source, self._left_over = None, {}
        for part, module in self.model.named_modules():
            convert_own = getattr(module, "convert", None)  # a backbone that knows its library's
            if convert_own is not None and (found := convert_own(checkpoint["model"])) is not None:
                prefix = f"{part}." if part else ""
                checkpoint["model"] = {f"{prefix}{x}": y for x, y in found.weights.items()}
                self._left_over = found.left_over
                return checkpoint
        self._source = recognise(checkpoint["model"])
        if self._source is not None:
            checkpoint["model"], self._left_over = convert(checkpoint["model"], self._source)
            logger.info("%s: weights of %s", filename, self._source)
            warn_of_licence(filename, SOURCES[self._source].licence)
        return checkpoint

    def _load_model(self, checkpoint: Any) -> Any:
        model = self.model.state_dict()
        found = dict(checkpoint["model"])
        for name in [name for name in found if name.endswith(".num_batches_tracked")]:
            if name not in model:
                del found[name]
                self._left_over[name] = _COUNTERS
        checkpoint["model"] = found
        present = {part_of(name) for name in found}
        self._differences = differences(found, model)
        incompatible = super()._load_model(checkpoint)
        # Counters only matter with a momentum of None, which nobody uses.
        missing = [n for n in incompatible.missing_keys if not n.endswith("num_batches_tracked")]
        wrong = {name: (a, b) for name, a, b in incompatible.incorrect_shapes}
        self.problems = {
            name: f"{name} {tuple(a)} instead of {tuple(b)}" for name, (a, b) in wrong.items()
        }
        self.problems |= {n: f"{n} is missing" for n in missing if n not in wrong}
        # A network that lacks a layer of the one that was trained computes something else.
        foreign = [
            n
            for n in incompatible.unexpected_keys
            if n.startswith(("backbone.blocks.", "backbone.network."))
        ]
        foreign += [f"backbone: {n}" for n, why in self._left_over.items() if why == FOREIGN_LAYER]
        self.problems |= {n: f"{n} has no place in it" for n in foreign}
        self._absent = {part_of(name) for name in missing} - present
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        left_over = dict(self._left_over)
        left_over |= dict.fromkeys(incompatible.unexpected_keys, "the model has no such part")
        for reason in sorted(set(left_over.values())):
            names = [name for name, why in left_over.items() if why == reason]
            level = logging.DEBUG if reason == _COUNTERS else logging.INFO  # nobody misses them
            logger.log(level, "Left over, %s: %s", reason, _some(names, 8))
        mean = getattr(self.model, "pixel_mean", None)
        if self._source is not None and mean is not None:
            source = SOURCES[self._source]
            if not torch.allclose(mean.flatten().cpu(), torch.tensor(source.pixel_mean)):
                logger.warning(
                    "Weights of %s were trained with MODEL.PIXEL_MEAN %s and PIXEL_STD %s",
                    *(self._source, list(source.pixel_mean), list(source.pixel_std)),
                )

    def refuse_problems(self, path: str) -> None:
        """Raise CheckpointMismatch when the last load left parameters as they were."""
        if self.problems:
            problems = self._differences + list(self.problems.values())
            raise CheckpointMismatch(f"{path} does not fit the configured model: {_some(problems)}")

    def accept_backbone(self, path: str) -> None:
        """After loading weights to start from: the backbone must have them all, or a part of it
        would start at random (CheckpointMismatch); heads need not."""
        if any(name.startswith("backbone") for name in self.problems):
            self.refuse_problems(path)
        for part, count in Counter(map(part_of, self.problems)).items():
            if part in self._absent:
                logger.info("%s has no %s: its %d tensors start fresh", path, part, count)
            else:
                wrong = [text for name, text in self.problems.items() if part_of(name) == part]
                # The head gets wider features where the interaction is new: as was meant.
                is_meant = "roi_heads.interaction" in self._absent
                logger.log(
                    logging.INFO if is_meant else logging.WARNING,
                    "%s fits %s in part, %d tensors start fresh: %s",
                    *(path, part, count, _some(self._differences + wrong)),
                )

    def save(self, name: str, **kwargs: Any) -> None:
        """Save `<name>.pth` with everything that a resumed run needs."""
        if not self.save_dir or not self.save_to_disk:
            return
        memory = Path(self.save_dir, f"{name}.memory")
        if self.pool is not None:
            kwargs["memory_checksum"] = self.pool.save(memory)
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        self._write(name, {**states, **kwargs})
        self.tag_last_checkpoint(f"{name}.pth")
        if self.pool is not None:
            for old in set(Path(self.save_dir).glob("model_*.memory")) - {memory}:
                old.unlink()

    def save_weights(self, name: str) -> None:
        """Save the model alone; a run is not resumed from it."""
        if self.save_dir and self.save_to_disk:
            self._write(name, {})

    def _write(self, name: str, states: dict[str, Any]) -> None:
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        data = {"model": self.model.state_dict(), **states}
        names, groups = (getattr(self.model, key, None) for key in (CLASS_NAMES, CLASS_GROUPS))
        if names:
            data[CLASS_NAMES] = list(names)
        if groups:
            data[CLASS_GROUPS] = [list(part) for part in groups]
        write_atomically(path, lambda file: torch.save(data, file))

    def has_checkpoint(self) -> bool:
        return last_checkpoint(self.save_dir) is not None

    def get_checkpoint_file(self) -> str:
        return last_checkpoint(self.save_dir) or ""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from."""
        write_atomically(Path(self.save_dir, LAST), last_filename_basename)

    def resume_or_load(
        self, path: str, *, resume: bool = True, rebuild_memory: bool = False
    ) -> dict[str, Any]:
        """See fvcore. A run is only resumed with the model it began with (CheckpointMismatch); with
        `rebuild_memory` the caller fills the pool, whose file is left alone."""
        resuming = resume and self.has_checkpoint()
        if path and not resuming:
            path = local_weights(path)
        if resuming:  # before optimiser and schedule are touched
            path = self.get_checkpoint_file()
            self.load(path, checkpointables=[])
            self.refuse_problems(path)
        loaded = super().resume_or_load(path, resume=resume)
        if path and not resuming:
            self.accept_backbone(path)
        if resuming and self.pool is not None and not rebuild_memory:
            memory = Path(path).with_suffix(".memory")
            self.pool.load(memory, loaded["memory_checksum"])
            logger.info("Memory pool: %d persons from %s", len(self.pool), memory)
        return loaded


def saved_groups(path: str) -> Groups | None:
    """Read which classes weights that were saved here have, named as for
    :func:`load_for_inference`; None: they do not tell."""
    local = local_weights(path)
    if not zipfile.is_zipfile(local):  # all that is saved here is one, and can be read in part
        return None
    try:
        found = torch.load(local, map_location="cpu", weights_only=True, mmap=True)
        names, sizes, exclusive = (tuple(x) for x in found[CLASS_GROUPS][:3])
        return Groups(names, sizes, exclusive)
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError):
        return None  # not saved here; who loads the weights says what they are


def load_for_inference(model: nn.Module, path: str) -> None:
    """Load weights, from a file, an address, or a name of the model zoo, that must cover the whole
    model, and the names of its classes.

    Raises:
        CheckpointMismatch: parameters are missing or have other shapes: a random head would give
            random results without a word.
        OSError: there are no such weights, or they cannot be downloaded.
        ValueError: the file holds no weights.
    """
    if not path:
        logger.warning(
            "MODEL.WEIGHTS is empty: the network is random and its results mean nothing."
        )
        return
    checkpointer = ActionCheckpointer(model)
    path = local_weights(path)
    names = checkpointer.load(path).get(CLASS_NAMES)
    checkpointer.refuse_problems(path)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        model.class_names = names  # type: ignore[assignment]  # no module
