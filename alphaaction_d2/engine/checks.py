"""Values of the keys of a run that detectron2 reads, or that are read when the run is under way."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ..config import TEXT, Rule, check_keys, number, one_of, several, whole
from ..evaluation.average_precision import PROTOCOL_NAMES
from .solver import CLIP_TYPES, OPTIMIZERS

# build_lr_scheduler asks for the steps in order.
_STEPS = Rule(
    "whole numbers in ascending order",
    lambda x: several(whole(0), range(1001)).holds(x) and list(x) == sorted(x),
)
_SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
_FACTOR = number(0, 1e6)
_RESULT = Rule(
    "a list of [task, metric, value, tolerance]",
    lambda x: (
        isinstance(x, tuple | list)
        and len(x) == 4
        and all(map(TEXT.holds, x[:2]))
        and all(number(-1e30).holds(value) for value in x[2:])
    ),
)

RUN_KEYS = {
    "": {
        "SEED": whole(-1, 2**31),  # numpy takes up to 2^32, and every process adds its number
        "OUTPUT_DIR": TEXT,
    },
    "DATASETS": {"TRAIN": several(TEXT, range(1001)), "TEST": several(TEXT, range(1001))},
    "DATALOADER": {
        "NUM_WORKERS": whole(0, 256),
        "STORED_VARIANTS": whole(0, 10_000),
        "STORED_FOLDER": Rule("a folder, or nothing", lambda x: isinstance(x, str)),
    },
    "SOLVER": {
        "OPTIMIZER": one_of(OPTIMIZERS),
        "LR_SCHEDULER_NAME": one_of(_SCHEDULERS),
        "IMS_PER_BATCH": whole(1, 100_000),
        "REFERENCE_IMS_PER_BATCH": whole(0, 100_000),
        "REFERENCE_WORLD_SIZE": whole(0, 100_000),
        "ACCUMULATION_STEPS": whole(1, 100_000),
        "MAX_ITER": whole(1),
        "CHECKPOINT_PERIOD": whole(1),
        "STEPS": _STEPS,
        "BASE_LR": _FACTOR,
        "BASE_LR_END": _FACTOR,
        "GAMMA": _FACTOR,
        "NUM_DECAYS": whole(1, 1000),
        "WARMUP_FACTOR": _FACTOR,
        "WARMUP_ITERS": whole(0),
        "WARMUP_METHOD": one_of(["constant", "linear"]),
        "MOMENTUM": number(0, 1),
        "WEIGHT_DECAY": _FACTOR,
        "WEIGHT_DECAY_NORM": _FACTOR,
        "BIAS_LR_FACTOR": _FACTOR,
        "INTERACTION_LR_FACTOR": _FACTOR,
        "LAYER_DECAY": number(0, 1, above=True),
    },
    "SOLVER.CLIP_GRADIENTS": {
        "CLIP_TYPE": one_of(CLIP_TYPES),
        "CLIP_VALUE": number(0, above=True),
        "NORM_TYPE": number(0, float("inf"), above=True),
    },
    "TEST": {
        "EVAL_PERIOD": whole(0),
        "EXPECTED_RESULTS": several(_RESULT, range(1001)),
        "AVA_PROTOCOL": one_of(PROTOCOL_NAMES),
        "AVA_DIALECT": one_of(["", *PROTOCOL_NAMES]),
    },
    "TEST.PRECISE_BN": {"NUM_ITER": whole(1)},
}


def check_run_keys(cfg: CfgNode) -> None:
    """Raise ValueError, in one line, for a value that would stop a run, or spoil it, on the way."""
    for section, rules in RUN_KEYS.items():
        check_keys(cfg, section, rules)
    known = one_of(name for name, _ in META_ARCH_REGISTRY)  # by now, also others' own
    check_keys(cfg, "MODEL", {"META_ARCHITECTURE": known})
    node = cfg.SOLVER
    if node.WEIGHT_DECAY_BIAS is not None:
        check_keys(cfg, "SOLVER", {"WEIGHT_DECAY_BIAS": _FACTOR})
    if node.OPTIMIZER == "SGD" and node.NESTEROV and node.MOMENTUM == 0:
        raise ValueError("SOLVER.NESTEROV True: expected a SOLVER.MOMENTUM above 0")
    if node.LR_SCHEDULER_NAME == "WarmupCosineLR" and not node.BASE_LR_END <= node.BASE_LR > 0:
        raise ValueError(
            f"SOLVER.BASE_LR_END {node.BASE_LR_END}: expected at most SOLVER.BASE_LR {node.BASE_LR}"
        )
    steps = [step for step in node.STEPS if step <= node.MAX_ITER]
    if node.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and len(steps) >= node.MAX_ITER:
        raise ValueError(
            f"SOLVER.STEPS {tuple(node.STEPS)}: expected fewer than SOLVER.MAX_ITER {node.MAX_ITER}"
        )
    if node.RESCALE_INTERVAL and node.WARMUP_ITERS >= node.MAX_ITER:
        raise ValueError(
            f"SOLVER.WARMUP_ITERS {node.WARMUP_ITERS}: expected less than SOLVER.MAX_ITER "
            f"{node.MAX_ITER}, as SOLVER.RESCALE_INTERVAL is on"
        )
    if node.REFERENCE_WORLD_SIZE and node.IMS_PER_BATCH % node.REFERENCE_WORLD_SIZE:
        raise ValueError(
            f"SOLVER.REFERENCE_WORLD_SIZE {node.REFERENCE_WORLD_SIZE}: expected a divisor of "
            f"SOLVER.IMS_PER_BATCH {node.IMS_PER_BATCH}"
        )
