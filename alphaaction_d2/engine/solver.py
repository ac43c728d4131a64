"""Optimisers with the learning-rate rules of the published recipes."""

from __future__ import annotations

import logging
import re

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from ..config import check_keys, one_of

logger = logging.getLogger(__name__)

OPTIMIZERS = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}
# "full_model" is what detectron2's projects call it; "value" and "norm" are detectron2's, parameter
# by parameter.
CLIP_TYPES = ("full_model", "value", "norm")
# Names of a video transformer's blocks, and of all in them, with their numbers.
_BLOCK = re.compile(r"backbone\.network\.(?:encoder\.)?(?:blocks|layer)\.(\d+)(?:\.|$)")


def parameter_groups(model: nn.Module, cfg: CfgNode) -> list[dict]:
    """Make one group per pair of learning rate and weight decay.

    The interaction module learns INTERACTION_LR_FACTOR times as fast, biases BIAS_LR_FACTOR times
    as fast and with WEIGHT_DECAY_BIAS. Scale and shift of normalisation layers have
    WEIGHT_DECAY_NORM. Blocks of a transformer learn LAYER_DECAY times as fast as what follows them
    (Clark et al., 2020; BEiT), and what is before the first block as a block would.

    NOTE detectron2's get_default_optimizer_params does not serve: there a bias has the rate
    BASE_LR * BIAS_LR_FACTOR whatever lr_factor_func says, where the released recipe of AIA
    multiplies both factors; and it takes the shift of a normalisation layer for a bias.

    Raises:
        ValueError: there is a LAYER_DECAY, and no such blocks.
    """
    node = cfg.SOLVER
    norm_types = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    blocks = {x: int(found[1]) for x, _ in model.named_modules() if (found := _BLOCK.match(x))}
    if node.LAYER_DECAY != 1 and not blocks:
        raise ValueError(
            f"SOLVER.LAYER_DECAY {node.LAYER_DECAY}: expected 1.0, for the backbone has no blocks "
            "in a row, as video transformers have"
        )
    behind = max(blocks.values(), default=0) + 1
    place = -1
    for module_name, module in model.named_modules():
        # in the order of computation
        place = blocks.get(module_name, behind if place >= 0 else place)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            lr, decay = node.BASE_LR, node.WEIGHT_DECAY
            if module_name.startswith("backbone."):
                lr *= node.LAYER_DECAY ** (behind - place)
            if module_name.startswith("roi_heads.interaction"):
                lr *= node.INTERACTION_LR_FACTOR
            if isinstance(module, norm_types):
                decay = node.WEIGHT_DECAY_NORM
            elif name == "bias":
                lr *= node.BIAS_LR_FACTOR
                decay = decay if node.WEIGHT_DECAY_BIAS is None else node.WEIGHT_DECAY_BIAS
            groups.setdefault((lr, decay), []).append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay}
        for (lr, decay), params in groups.items()
    ]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser that `cfg.SOLVER.OPTIMIZER` names."""
    node = cfg.SOLVER
    check_keys(cfg, "SOLVER", {"OPTIMIZER": one_of(OPTIMIZERS)})
    options = {"lr": node.BASE_LR}
    if node.OPTIMIZER == "SGD":
        options.update(momentum=node.MOMENTUM, nesterov=node.NESTEROV)
    else:
        options.update(fused=True)  # all tensors in one call: small networks have many
    clipping = node.CLIP_GRADIENTS
    groups = parameter_groups(model, cfg)
    if clipping.ENABLED and clipping.CLIP_TYPE == "full_model":
        optimizer = OPTIMIZERS[node.OPTIMIZER](groups, **options)
        clip_norm_before_step(optimizer, clipping.CLIP_VALUE, clipping.NORM_TYPE)
        return optimizer
    return maybe_add_gradient_clipping(cfg, OPTIMIZERS[node.OPTIMIZER])(groups, **options)


def clip_norm_before_step(
    optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float
) -> None:
    """Scale all gradients, before every step, so that their common norm is `max_norm` at most."""

    def clip(*_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip)


def scale_to_batch(cfg: CfgNode) -> CfgNode:
    """Scale linearly (Goyal et al., 2017) when the schedule is meant for another batch.

    With k = IMS_PER_BATCH / REFERENCE_IMS_PER_BATCH, rates are multiplied and everything counted in
    iterations is divided by k, so that the same number of clips is seen. The reference batch of the
    new, frozen configuration is the actual one.
    """
    reference, batch = cfg.SOLVER.REFERENCE_IMS_PER_BATCH, cfg.SOLVER.IMS_PER_BATCH
    if reference in (0, batch):
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    node, factor = cfg.SOLVER, batch / reference
    node.REFERENCE_IMS_PER_BATCH = batch
    node.BASE_LR *= factor
    for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
        node[key] = round(node[key] / factor)
    node.STEPS = tuple(round(step / factor) for step in node.STEPS)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / factor)
    cfg.freeze()
    logger.info(
        "IMS_PER_BATCH %d instead of %d: BASE_LR %g, MAX_ITER %d, STEPS %s, WARMUP_ITERS %d",
        *(batch, reference, node.BASE_LR, node.MAX_ITER, node.STEPS, node.WARMUP_ITERS),
    )
    return cfg
