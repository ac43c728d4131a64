#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line.

    tools/train_net.py --config-file configs/AVA/aia_dense_R50_4x16.yaml --num-gpus 8
    tools/train_net.py --config-file configs/Puppets/aia.yaml --eval-only \\
        MODEL.WEIGHTS output/puppets_aia/model_final.pth

Without a GPU, --num-gpus is the number of processes on the CPU. Started by torchrun, or by srun
with one task for every process, it needs none of the arguments about GPUs and machines.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from detectron2.checkpoint import Checkpointer
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.apps.command_line import USER_ERRORS, run_tool
from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.distributed.launch import launch


def argument_parser() -> ArgumentParser:
    """detectron2's arguments, and ours."""
    parser = default_argument_parser()
    parser.set_defaults(dist_url="auto")  # a free port, where there is only one machine
    parser.add_argument(
        "--connect-timeout",
        type=float,
        default=300,
        metavar="SECONDS",
        help="how long to wait at the start until all processes have met (default: 300)",
    )
    parser.add_argument(
        "--rebuild-memory",
        action="store_true",
        help="with --resume: fill the memory with the model's present features instead of reading "
        "its file, which is missing or damaged",
    )
    return parser


def setup(args: Namespace) -> CfgNode:
    """The configuration of the command line, checked and frozen."""
    cfg = setup_cfg(args.config_file, args.opts)
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="alphaaction_d2")
    register_datasets(cfg)
    return cfg


def main(args: Namespace) -> dict:
    """Train, or evaluate; returns the results of the last evaluation."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        load_for_inference(model, weights_to_evaluate(cfg, resume=args.resume))
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume, rebuild_memory=args.rebuild_memory)
    return trainer.train()


def weights_to_evaluate(cfg: CfgNode, resume: bool) -> str:
    """MODEL.WEIGHTS, or with --resume the last checkpoint of OUTPUT_DIR."""
    folder = Checkpointer(None, cfg.OUTPUT_DIR, save_to_disk=False) if resume else None
    path = folder.get_checkpoint_file() if resume and folder.has_checkpoint() else ""
    path = path or cfg.MODEL.WEIGHTS
    if not path:
        raise ValueError("--eval-only needs MODEL.WEIGHTS, or --resume and a finished run")
    return path


def device_of(args: Namespace) -> str:
    """MODEL.DEVICE of the command line, which decides how processes talk to each other."""
    try:
        return setup_cfg(args.config_file, args.opts).MODEL.DEVICE
    except USER_ERRORS:
        return "cpu"  # any will do: `main` meets the mistake again, and it is reported once


def run(args: Namespace) -> int:
    """Run `main` in all processes; the exit code."""
    return launch(
        main,
        (args,),
        device=device_of(args),
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        connect_timeout=args.connect_timeout,
    )


if __name__ == "__main__":
    arguments = argument_parser().parse_args()
    sys.exit(run_tool(lambda: run(arguments)))
