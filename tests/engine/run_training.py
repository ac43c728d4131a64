"""Train from a configuration file, in one process or several, and be killed on the way.

    python -m tests.engine.run_training CONFIG [--resume] [--processes N] [--rebuild-memory]
        [--after-step N] [--in-save EVENT]

--after-step: SIGKILL when step N is done and everything of it is saved that will be.
--in-save: SIGKILL at an event of the first save: 0 half of the pool's file is written, 1 the file
    is complete but has no name, 2 it has; 3, 4, 5 the same of the checkpoint; 6, 7, 8 of its tag.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch
from detectron2.engine import HookBase, launch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.checkpoint import checkpointer
from alphaaction_d2.engine import Trainer
from alphaaction_d2.formats import writing as files
from alphaaction_d2.memory import file as memory_file


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DieAfterStep(HookBase):
    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self) -> None:
        if self.trainer.iter == self.step:
            die()


def die_in_save(event: int) -> None:
    """Count what write_atomically does to the disk."""
    write, fsync, replace = files.write_atomically, os.fsync, os.replace
    done = 0

    def count(function, *args):
        nonlocal done
        function(*args)
        done += 1
        if done == event + 1:
            die()

    def half(path, content):
        def write_half(file):
            before = done
            content(file) if callable(content) else file.write(
                content if isinstance(content, bytes) else content.encode()
            )
            if before == event:
                file.flush()
                file.truncate(file.tell() // 2)
            count(lambda: None)

        return write(path, write_half)

    os.fsync = lambda handle: count(fsync, handle)
    os.replace = lambda a, b: count(replace, a, b)
    for module in (memory_file, checkpointer):
        module.write_atomically = half


def train(args: argparse.Namespace) -> None:
    """One process of a run; leaves what it holds of the memory as worker_<rank>.pth."""
    cfg = setup_cfg(args.config)
    setup_logger(cfg.OUTPUT_DIR)
    register_datasets(cfg)
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = Trainer(cfg)
    if args.after_step is not None:
        trainer.register_hooks([DieAfterStep(args.after_step)])
    if args.in_save is not None:
        die_in_save(args.in_save)
    trainer.resume_or_load(resume=args.resume, rebuild_memory=args.rebuild_memory)
    trainer.train()
    if trainer.pool is not None:
        comm.synchronize()
        state = trainer.pool.state_dict()
        torch.save(state, Path(cfg.OUTPUT_DIR, f"worker_{comm.get_rank()}.pth"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--rebuild-memory", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--after-step", type=int)
    parser.add_argument("--in-save", type=int)
    args = parser.parse_args()
    launch(train, args.processes, dist_url="auto", args=(args,))


if __name__ == "__main__":
    main()
