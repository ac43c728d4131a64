#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line.

    tools/train_net.py --config-file configs/AVA/aia_dense_R50_4x16.yaml --num-gpus 8
    tools/train_net.py --config-file configs/Puppets/aia.yaml --eval-only \\
        MODEL.WEIGHTS output/puppets_aia/model_final.pth

Without a GPU, --num-gpus is the number of processes on the CPU.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from detectron2.checkpoint import Checkpointer
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.checkpoint import load_for_inference
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.command_line import run_tool


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
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def weights_to_evaluate(cfg: CfgNode, resume: bool) -> str:
    """MODEL.WEIGHTS, or with --resume the last checkpoint of OUTPUT_DIR."""
    folder = Checkpointer(None, cfg.OUTPUT_DIR, save_to_disk=False) if resume else None
    path = folder.get_checkpoint_file() if resume and folder.has_checkpoint() else ""
    path = path or cfg.MODEL.WEIGHTS
    if not path:
        raise ValueError("--eval-only needs MODEL.WEIGHTS, or --resume and a finished run")
    return path


def run(args: Namespace) -> None:
    """Launch the processes."""
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    sys.exit(run_tool(lambda: run(arguments)))
