"""Checkpoints: weights that must fit, and the memory pool beside them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

logger = logging.getLogger(__name__)


class SavedBeside(Protocol):
    """Something with a file of its own beside the checkpoint: the memory pool."""

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...

    def __len__(self) -> int: ...


class CheckpointMismatch(ValueError):
    """Weights that do not fit the configured model; the message names what does not."""


class ActionCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which also keeps the memory pool.

    The pool of `model_0000999.pth` is `model_0000999.memory`; it is written first, so a checkpoint
    that exists has its pool. Pools are large: only the newest one is kept.
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
        if self.pool is None or not self.save_dir or not self.save_to_disk:
            super().save(name, **kwargs)
            return
        path = Path(self.save_dir, f"{name}.memory")
        self.pool.save(path)
        super().save(name, **kwargs)
        for old in Path(self.save_dir).glob("*.memory"):
            if old != path:
                old.unlink()

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        loaded = super().resume_or_load(path, resume=resume)
        if resume and self.has_checkpoint() and self.pool is not None:
            memory = Path(self.get_checkpoint_file()).with_suffix(".memory")
            self.pool.load(memory)
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
    checkpointer = _Reporting(model)
    if not checkpointer.path_manager.isfile(path):
        raise FileNotFoundError(f"{path}: no such weights; set MODEL.WEIGHTS to an existing file")
    checkpointer.load(path)
    wrong = [f"{k} {tuple(a)} instead of {tuple(b)}" for k, a, b in checkpointer.wrong_shapes]
    problems = [*wrong, *(f"{k} is missing" for k in checkpointer.missing)]
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointMismatch(f"{path} does not fit the configured model: {shown}{more}")


class _Reporting(DetectionCheckpointer):
    """Keeps what did not fit when loading."""

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        self.wrong_shapes = incompatible.incorrect_shapes
        shapes = {key for key, *_ in incompatible.incorrect_shapes}
        self.missing = [key for key in incompatible.missing_keys if key not in shapes]
        return incompatible
