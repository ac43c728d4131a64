"""Whenever a save is interrupted, there is a whole checkpoint with its pool to go on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from alphaaction_d2.checkpoint import checkpointer as module
from alphaaction_d2.checkpoint.checkpointer import ActionCheckpointer, last_checkpoint


class Killed(BaseException):
    """Nothing catches it."""


class Pool:
    """A memory that is a number."""

    number = 0

    def save(self, path: Path) -> str:
        module.write_atomically(path, str(self.number))
        return str(self.number)

    def load(self, path: Path, checksum: str) -> None:
        self.number = int(path.read_text())
        assert checksum == path.read_text()

    def __len__(self) -> int:
        return self.number


def test_killed_between_any_two_files(tmp_path, monkeypatch):
    write, unlink = module.write_atomically, Path.unlink
    done: list[str] = []
    last = None  # the event before which the process is killed

    def before(event: str) -> None:
        if len(done) == last:
            raise Killed
        done.append(event)

    def counted_write(path, content):
        before(Path(path).name)
        write(path, content)

    def counted_unlink(path, missing_ok=False):
        if not path.name.endswith(".partial"):
            before(f"remove {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(module, "write_atomically", counted_write)
    monkeypatch.setattr(Path, "unlink", counted_unlink)
    model, pool = torch.nn.Linear(1, 1, bias=False), Pool()
    checkpointer = ActionCheckpointer(model, str(tmp_path), pool=pool)

    def save(number: int) -> None:
        torch.nn.init.constant_(model.weight, number)
        pool.number = number
        done.clear()
        checkpointer.save(f"model_{number}")

    save(1)
    order = ["model_2.memory", "model_2.pth", "last_checkpoint", "remove model_1.memory"]
    for last in range(len(order) + 1):
        try:
            save(2)
        except Killed:
            pass
        assert done == order[:last]
        checkpointer.resume_or_load("", resume=True)
        saved = 1 if last < 3 else 2
        assert model.weight.item() == pool.number == saved
        for path in tmp_path.glob("model_2.*"):
            unlink(path)
        last = None
        save(1)


@pytest.mark.parametrize(
    "last, reason",
    [(None, "is missing"), ("", "is empty"), ("model_7.pth", "names 'model_7.pth', which is not")]
    + [
        ("../model_1.pth", "names .*model_1.pth., which is not in this folder"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_a_run_does_not_begin_anew_over_its_checkpoints(tmp_path, last, reason):
    checkpointer = ActionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    assert last_checkpoint(tmp_path) is None and not checkpointer.has_checkpoint()
    checkpointer.save("model_0000001")
    checkpointer.save("model_0000003")
    checkpointer.save_weights("model_best")
    assert last_checkpoint(tmp_path) == str(tmp_path / "model_0000003.pth")
    (tmp_path / "last_checkpoint").unlink()
    if last is not None:
        content = last if isinstance(last, bytes) else last.encode()
        (tmp_path / "last_checkpoint").write_bytes(content)
    for resume in (lambda: checkpointer.resume_or_load(""), lambda: last_checkpoint(tmp_path)):
        with pytest.raises(ValueError, match=f"last_checkpoint {reason}.*model_0000003.pth.*new"):
            resume()
    checkpointer.resume_or_load("", resume=False)


def test_best_weights_alone_are_nothing_to_resume_from(tmp_path):
    ActionCheckpointer(nn.Linear(1, 1), str(tmp_path)).save_weights("model_best")
    assert last_checkpoint(tmp_path) is None
