#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line.

    tools/train_net.py --config-file configs/AVA/aia_dense_R50_4x16.yaml --num-gpus 8
    tools/train_net.py --config-file configs/Puppets/aia.yaml --eval-only MODEL.WEIGHTS
    output/puppets_aia/model_final.pth

Without a GPU, --num-gpus is the number of processes on the CPU.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.checkpoint import load_for_inference
from alphaaction_d2.data import VideoError
from alphaaction_d2.engine import Trainer


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
        load_for_inference(model, cfg.MODEL.WEIGHTS)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def run(args: Namespace) -> int:
    """Launch the processes; what the user can mend is one line and exit code 2."""
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except (ValueError, KeyError, FileNotFoundError, VideoError) as error:
        if comm.get_world_size() > 1:
            raise
        print(f"error: {error.args[0] if error.args else error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(default_argument_parser().parse_args()))
