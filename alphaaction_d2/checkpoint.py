"""Checkpoints: weights that must fit, and the memory pool beside them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .files import write_atomically

logger = logging.getLogger(__name__)

LAST = "last_checkpoint"  # the file that names the checkpoint to resume from


class SavedBeside(Protocol):
    """Something with a file of its own beside the checkpoint: the memory pool."""

    def save(self, path: Path) -> str: ...

    def load(self, path: Path, checksum: str) -> None: ...

    def __len__(self) -> int: ...


class CheckpointMismatch(ValueError):
    """Weights that do not fit the configured model; the message names what does not."""


class _StrictCheckpointer(DetectionCheckpointer):
    """Can say what did not fit when loading."""

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        wrong = {name: (a, b) for name, a, b in incompatible.incorrect_shapes}
        self.problems = [
            f"{name} {tuple(a)} instead of {tuple(b)}" for name, (a, b) in wrong.items()
        ] + [f"{name} is missing" for name in incompatible.missing_keys if name not in wrong]
        return incompatible

    def refuse_problems(self, path: str) -> None:
        """Raise CheckpointMismatch when the last load left parameters as they were."""
        if self.problems:
            shown = "; ".join(self.problems[:5])
            rest = len(self.problems) - 5
            more = f"; and {rest} more" if rest > 0 else ""
            raise CheckpointMismatch(f"{path} does not fit the configured model: {shown}{more}")


class ActionCheckpointer(_StrictCheckpointer):
    """detectron2's checkpointer, which also keeps the memory pool, and survives being killed.

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
        write_atomically(path, lambda file: torch.save(data, file))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from."""
        write_atomically(Path(self.save_dir, LAST), last_filename_basename)

    def resume_or_load(
        self, path: str, *, resume: bool = True, rebuild_memory: bool = False
    ) -> dict[str, Any]:
        """See fvcore. A run is only resumed with the model it began with (CheckpointMismatch).

        Args:
            rebuild_memory: leave the pool's file alone; the caller fills the pool.
        """
        resuming = resume and self.has_checkpoint()
        if path and not resuming and "://" not in path and not self.path_manager.isfile(path):
            raise FileNotFoundError(f"{path}: no such weights to start from (MODEL.WEIGHTS)")
        if resuming:  # before optimiser and schedule are touched
            path = self.get_checkpoint_file()
            self.load(path, checkpointables=[])
            self.refuse_problems(path)
        loaded = super().resume_or_load(path, resume=resume)
        if resuming and self.pool is not None and not rebuild_memory:
            memory = Path(path).with_suffix(".memory")
            self.pool.load(memory, loaded["memory_checksum"])
            logger.info("Memory pool: %d persons from %s", len(self.pool), memory)
        return loaded


def load_for_inference(model: nn.Module, path: str) -> None:
    """Load weights that must cover the whole model.

    Raises:
        CheckpointMismatch: parameters are missing or have other shapes: a random head would give
            random results without a word.
        FileNotFoundError: there is no such file.
    """
    if not path:
        logger.warning(
            "MODEL.WEIGHTS is empty: the network is random and its results mean nothing."
        )
        return
    checkpointer = _StrictCheckpointer(model)
    if not checkpointer.path_manager.isfile(path):
        raise FileNotFoundError(f"{path}: no such weights; set MODEL.WEIGHTS to an existing file")
    try:
        checkpointer.load(path)
    except Exception as error:  # unpickling raises nearly anything on other files
        raise ValueError(f"{path}: not a checkpoint ({type(error).__name__}: {error})") from error
    checkpointer.refuse_problems(path)
