"""Train and evaluate action models with detectron2's command line.

    alphaaction train --config-file configs/AVA/aia_dense_R50_4x16.yaml --num-gpus 8
    alphaaction train --config-file configs/Puppets/aia.yaml --eval-only \\
        MODEL.WEIGHTS output/puppets_aia/model_final.pth

Without a GPU, --num-gpus is the number of processes on the CPU. Started by torchrun, or by srun
with one task for every process, it needs none of the arguments about GPUs and machines.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from ..checkpoint.checkpointer import last_checkpoint, load_for_inference
from ..data.datasets import check_data_sets, register_datasets
from ..engine import Trainer
from ..engine.checks import check_run_keys
from ..engine.classes import with_classes
from ..engine.distributed.environment import check_gpus, join_group, launcher_variables
from ..formats.config_files import setup_cfg
from ..formats.writing import only_writer, write_atomically
from .command_line import USER_ERRORS, report_error
from .console import setup_console

GRACE = 3.0  # seconds in which whatever started the processes ends those that have nothing to say


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """detectron2's arguments, and ours."""
    parser = default_argument_parser()
    parser.set_defaults(dist_url="auto")  # a free port, where there is only one machine
    parser.add_argument(
        "--rebuild-memory",
        action="store_true",
        help="with --resume: fill the memory with the model's present features instead of reading "
        "its file, which is missing or damaged",
    )
    return parser.parse_args(argv)


def setup(args: Namespace) -> CfgNode:
    """Read the configuration of the command line, check and freeze it."""
    cfg = setup_cfg(args.config_file, args.opts)
    check_run_keys(cfg)
    if args.eval_only:
        cfg = with_classes(cfg, weights_to_evaluate(cfg, resume=args.resume))
    register_datasets(cfg)
    check_data_sets(cfg)
    begin_run(cfg, args)
    return cfg


def begin_run(cfg: CfgNode, args: Namespace) -> None:
    """Do what detectron2's `default_setup` does, but tell it to `log.txt` instead of everybody."""
    rank, folder = comm.get_rank(), Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    logger = setup_console(folder, rank=rank)
    logger.debug("Process %d of %d; arguments: %s", rank, comm.get_world_size(), args)
    # It looks for compilers, and warns that there is no GPU, which the text says anyway.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    logger.debug("Environment:\n%s", collect_env_info())
    logger.debug("Configuration:\n%s", cfg.dump())
    if comm.is_main_process():
        logger.info("Configuration, messages and results: %s", folder)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def train_or_test(args: Namespace) -> dict:
    """Train, or evaluate; returns the results of the last evaluation."""
    cfg = setup(args)
    config = Path(cfg.OUTPUT_DIR, "config.yaml")
    if args.eval_only:
        if comm.is_main_process() and not config.exists():  # that of a training stays
            write_atomically(config, cfg.dump())
        model = Trainer.build_model(cfg)
        load_for_inference(model, weights_to_evaluate(cfg, resume=args.resume))
        results = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)  # of TEST.EXPECTED_RESULTS
        return results
    with only_writer(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext():
        if comm.is_main_process():
            write_atomically(config, cfg.dump())
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume, rebuild_memory=args.rebuild_memory)
        return trainer.train()


def weights_to_evaluate(cfg: CfgNode, resume: bool) -> str:
    """MODEL.WEIGHTS, or with --resume the last checkpoint of OUTPUT_DIR."""
    path = (last_checkpoint(cfg.OUTPUT_DIR) if resume else None) or cfg.MODEL.WEIGHTS
    if not path:
        raise ValueError("--eval-only needs MODEL.WEIGHTS, or --resume and a finished run")
    return path


def main(args: Namespace) -> int:
    """Run `train_or_test` in all processes: those of torchrun or srun, else those asked for here.
    Returns the exit code: 0, or that of the process that failed, which has said what happened; one
    of torchrun or srun ends here."""
    # Several machines of detectron2's arguments: a task of srun may well be a whole machine.
    variables = launcher_variables(os.environ) if args.num_machines == 1 else None
    if variables is not None:
        _refuse_contradictions(args, variables)
        join_group(variables, _device(args))
        _main_of_several(args)
        _leave(0)
    if args.num_gpus == args.num_machines == 1:
        train_or_test(args)
        return 0
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(
            f"--num-machines {args.num_machines} needs --dist-url tcp://ADDRESS:PORT, the same on "
            "all machines: an address of machine 0 and a free port there"
        )
    if torch.device(_device(args)).type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else detectron2 prefers NCCL, on any machine
    else:
        check_gpus(args.num_gpus, torch.cuda.device_count())
    # Who keeps account of semaphores tells of those that an interrupted process leaves.
    told = os.environ.get("PYTHONWARNINGS", "").split(",")
    told.append("ignore::UserWarning:multiprocessing.resource_tracker")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, told))
    try:
        launch(
            _main_of_several,
            *(args.num_gpus, args.num_machines, args.machine_rank, args.dist_url),
            args=(args,),
        )
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()  # it leaves Ctrl-C to us, see alphaaction.py
        raise
    except ProcessRaisedException as error:  # from detectron2: ours do not raise
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"the processes can't meet at {args.dist_url}: {reason}") from None
    except ProcessExitedException as error:
        if error.exit_code > 0:  # it has said why
            return error.exit_code
        hint = " (did the memory run out?)" if error.signal_name == "SIGKILL" else ""
        raise ChildProcessError(
            f"process {error.error_index} of this machine was ended by {error.signal_name}{hint}"
        ) from None
    return 0


def _main_of_several(args: Namespace) -> None:
    """Run `train_or_test` in a process of a group; an error ends it, and is one line if it can.

    What is wrong in all processes shall be told once, and the process that failed shall be heard
    before those that wait for it: these give the launcher time to end them first.
    """
    try:
        train_or_test(args)
        comm.synchronize()
        torch.distributed.destroy_process_group()
    except Exception as error:
        text = str(error)
        if isinstance(error, torch.distributed.DistError) or "gloo/transport" in text:
            time.sleep(2 * GRACE)
            reason = (text.strip().splitlines() or [type(error).__name__])[0]
            error = ConnectionError(f"lost the connection to another process: {reason}")
        elif comm.get_local_rank():
            time.sleep(GRACE)
        # Others need not have come to their end: nothing here may wait for them.
        _leave(report_error(error), wait=False)


def _leave(code: int, wait: bool = True) -> NoReturn:
    """End this process as multiprocessing ends its own: without Python's own way out, during which
    threads of Gloo, which may outlive their group, now and then abort a process that has done all.

    Args:
        wait: for what was to be done at the end (a logger that still sends), too.
    """
    if wait:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _device(args: Namespace) -> str:
    """MODEL.DEVICE of the command line, which decides how processes talk to each other."""
    try:
        device = setup_cfg(args.config_file, args.opts).MODEL.DEVICE
    except USER_ERRORS:
        return "cpu"  # any will do: the mistake is met again, and reported once
    if torch.device(device).index is not None:
        raise ValueError(f"MODEL.DEVICE {device} is one GPU for all processes: write cuda")
    return device


def _refuse_contradictions(args: Namespace, variables: dict[str, str]) -> None:
    if args.num_gpus not in (1, int(variables["LOCAL_WORLD_SIZE"])) or args.dist_url != "auto":
        raise ValueError(
            f"--num-gpus {args.num_gpus} --dist-url {args.dist_url}, but torchrun or srun has "
            f"started {variables['WORLD_SIZE']} processes, {variables['LOCAL_WORLD_SIZE']} on each "
            f"machine, which meet at {variables['MASTER_ADDR']}: leave these arguments out"
        )
