"""Cases of training: several steps with the memory, and the optimiser of the released recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_model, build_roi_heads
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes, Instances
from torch import Tensor

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint.sources import convert
from alphaaction_d2.engine.hooks import MemoryHook
from alphaaction_d2.engine.solver import build_optimizer
from alphaaction_d2.engine.train_loop import ActionTrainLoop
from alphaaction_d2.memory.pool import MemoryPool
from alphaaction_d2.modeling.meta_arch import ActionRCNN

from .case import LAST_PIXEL, TRAINING_TOLERANCE, GoldenCase
from .heads import head_config, load_head, our_head_name, our_head_weights
from .losses import RELEASED, with_pose
from .memory import persons_of_clips

FIRST_ERR = "before the first step the current loss is 0 there and infinite here; weights are 0"
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "AVA" / "released"
RECIPES = {
    "resnet50_4x16f_baseline": "slowfast_R50_4x16.yaml",
    "resnet50_4x16f_parallel": "aia_parallel_R50_4x16.yaml",
    "resnet50_4x16f_serial": "aia_serial_R50_4x16.yaml",
    "resnet50_4x16f_denseserial": "aia_dense_R50_4x16.yaml",
    "resnet101_8x8f_baseline": "slowfast_R101_8x8.yaml",
    "resnet101_8x8f_denseserial": "aia_dense_R101_8x8.yaml",
}


def configure_solver(cfg: CfgNode, solver: dict) -> None:
    """Our configuration of a released solver."""
    node = cfg.SOLVER
    node.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    node.INTERACTION_LR_FACTOR = float(solver["IA_LR_FACTOR"])
    node.BIAS_LR_FACTOR = float(solver["BIAS_LR_FACTOR"])
    node.STEPS = tuple(solver["STEPS"])
    node.WARMUP_ITERS = solver["WARMUP_ITERS"] if solver["WARMUP_ON"] else 0
    node.REFERENCE_IMS_PER_BATCH = 0
    same = ("MAX_ITER", "BASE_LR", "MOMENTUM", "WEIGHT_DECAY", "WEIGHT_DECAY_BIAS", "GAMMA")
    for key in (*same, "WARMUP_FACTOR", "WARMUP_METHOD"):
        node[key] = solver[key]


class KnownMaps(Backbone):
    """Gives the maps of known clips; a clip is known by the colour of its pictures."""

    def __init__(self, maps: dict[str, Tensor], stride: int) -> None:
        """`maps`: name -> (clips, C, T, H, W); the i-th clip has the colour i everywhere."""
        super().__init__()
        self.maps, self.stride = maps, stride

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        numbers = clips[:, 0, 0, 0, 0].long()
        return {name: x[numbers] for name, x in self.maps.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=x.shape[1], stride=self.stride)
            for name, x in self.maps.items()
        }


class PrescribedBatches:
    """A loader of batches in a given order; the part of TrainLoader that the loop knows."""

    world_size, seed = 1, 0

    def __init__(self, batches: list[list[dict]]) -> None:
        self.batches = batches
        self.batch_size = len(batches[0])

    def __iter__(self) -> Iterator[list[dict]]:
        yield from ([dict(clip) for clip in batch] for batch in self.batches)


class TraceHook(HookBase):
    """Compares what every step starts from and what it computes."""

    def __init__(self, case: GoldenCase, model: ActionRCNN, pool: MemoryPool) -> None:
        self.pool, self.rates, self.losses, self.errors, self.memory = pool, [], [], [], []
        released = {our_head_name(name): name for name in case.params()}
        self.released = {f"roi_heads.{ours}": name for ours, name in released.items()}
        model.register_forward_hook(lambda _, args, out: self.losses.append(out))
        model.roi_heads.interaction.register_forward_pre_hook(
            lambda _, args: self.memory.append(args[1].features.flatten(1, 2))
        )
        self.model = model

    def before_step(self) -> None:
        self.errors.append(self.pool.err)
        names = {id(p): self.released[name] for name, p in self.model.named_parameters()}
        self.rates.append(
            {
                names[id(p)]: group["lr"]
                for group in self.trainer.optimizer.param_groups
                for p in group["params"]
            }
        )

    def rates_of(self, kind: str) -> Tensor:
        """(iterations,) rates of "head_weight", "head_bias", "ia_weight" or "ia_bias"."""
        part, _, entry = kind.rpartition("_")
        inside = part == "ia"
        per_step = [
            {r for n, r in rates.items() if ("ia_structure" in n) == inside and n.endswith(entry)}
            for rates in self.rates
        ]
        return torch.tensor([rates.pop() if len(rates) == 1 else math.nan for rates in per_step])


def check_trace(case: GoldenCase) -> None:
    """Steps of the production loop on known maps: memory, losses, rates, pool, weights."""
    config = case.config
    places = sorted({tuple(key.split("/")[2:4]) for key in case.arrays if "in/clip/" in key})
    cfg = head_config(config)
    configure_solver(cfg, config["solver"])
    clips = [f"in/clip/{movie}/{second}" for movie, second in places]
    maps = {
        name: torch.stack([case.raw(f"{clip}/{name}") for clip in clips])
        for name in ("slow", "fast")
    }
    backbone = KnownMaps(maps, round(1 / config["roi_action_head"]["POOLER_SCALE"]))
    model = ActionRCNN(
        backbone=backbone,
        roi_heads=build_roi_heads(cfg, backbone.output_shape()),
        num_frames=1,
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    ).train()
    unused = load_head(case, model.roi_heads)
    inputs = {
        (movie, int(second)): _clip_input(case, clips[i], i, model)
        | {"video_id": movie, "timestamp": int(second)}
        for i, (movie, second) in enumerate(places)
    }
    order = zip(case.names("in/order_movie_ids"), case.counts("in/order_timestamps"))
    batches = [[inputs[place] for place in zip(*row)] for row in order]
    keyframes = [(*place, len(x["proposals"])) for place, x in inputs.items()]
    pool = MemoryPool(cfg, model.roi_heads.num_channels, keyframes=keyframes)
    optimizer = build_optimizer(cfg, model)
    loop = ActionTrainLoop(model, PrescribedBatches(batches), optimizer, pool)
    trace = TraceHook(case, model, pool)
    scheduler = hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer))
    loop.register_hooks([trace, MemoryHook(pool, model.roi_heads.interaction), scheduler])
    loop.train(0, len(batches))
    _compare_trace(case, trace)
    _compare_pool(case, pool)
    state = our_head_weights(case.params("out/final_param/"))
    for name, expected in state.items():
        key = f"out/final_param/{trace.released[f'roi_heads.{name}']}"
        if name in unused:
            case.skip(key, "a layer without effect")
            continue
        limit = max(TRAINING_TOLERANCE * expected.std(unbiased=False).item(), 1e-6)
        case.compare_within(key, model.roi_heads.state_dict()[name], expected, limit)


def _clip_input(case: GoldenCase, clip: str, number: int, model: ActionRCNN) -> dict:
    """The model's input of one clip."""
    height, width = case.image_size
    boxes = case.raw(f"{clip}/boxes")
    (proposals,) = persons_of_clips(case.image_size, boxes + LAST_PIXEL, [len(boxes)])
    things = case.raw(f"{clip}/objects") + LAST_PIXEL
    labels = with_pose(case, case.raw(f"{clip}/labels"), model.roi_heads.predictor.groups)
    return {
        "video": torch.full((3, 1, height, width), number, dtype=torch.uint8),
        "proposals": proposals,
        "objects": Instances(case.image_size, boxes=Boxes(things), scores=torch.ones(len(things))),
        "instances": Instances(case.image_size, gt_classes=labels, gt_boxes=Boxes(boxes)),
    }


def _compare_trace(case: GoldenCase, trace: TraceHook) -> None:
    for i, memory in enumerate(trace.memory):
        case.compare(f"out/memory_iter{i}", memory, tolerance=TRAINING_TOLERANCE)
    case.note(FIRST_ERR)
    errors = torch.tensor([0.0, *trace.errors[1:]])
    case.compare("out/cur_loss", errors, tolerance=TRAINING_TOLERANCE)
    totals = torch.stack([sum(losses.values()).detach() for losses in trace.losses])
    case.compare("out/total", totals, tolerance=TRAINING_TOLERANCE)
    for name, released in RELEASED.items():
        weight = case.config["loss_weights"][f"loss_{released}"]
        values = torch.stack([losses[f"loss_{name}"].detach() for losses in trace.losses])
        case.compare(f"out/{name}", values / weight, tolerance=TRAINING_TOLERANCE)
    for key in [key for key in case.arrays if key.startswith("out/lr_")]:
        case.compare(key, trace.rates_of(key[len("out/lr_") :]))


def _compare_pool(case: GoldenCase, pool: MemoryPool) -> None:
    """What is stored at the end, row by row."""
    state = pool.state_dict()
    places = list(
        zip(case.names("out/final_pool_movie_ids"), case.counts("out/final_pool_timestamps"))
    )
    positions = [pool.slots.place(movie, second) for movie, second in places]
    counts = state["counts"][positions]
    case.compare_exact("out/final_pool_counts", counts)
    rows = [
        row
        for position, count in zip(positions, counts.tolist())
        for row in range(pool.slots.starts[position], pool.slots.starts[position] + count)
    ]
    height, width = case.image_size
    boxes = state["boxes"][rows] * torch.tensor([width, height, width, height]) - LAST_PIXEL
    tolerance = TRAINING_TOLERANCE
    case.compare("out/final_pool_features", state["features"][rows], tolerance=tolerance)
    case.compare("out/final_pool_boxes", boxes, tolerance=tolerance)
    tags = state["tags"][positions].float()
    case.compare("out/final_pool_loss_tags", tags, tolerance=tolerance)
    # Whoever is stored besides these is too much.
    case.check("out/final_pool_movie_ids", len(pool) == int(counts.sum()), "stores others too")
    case.check("out/final_pool_timestamps", len(set(positions)) == len(places), "are mixed up")


def check_recipe(case: GoldenCase) -> None:
    """Rate and decay of every parameter, the schedule, and the initial values."""
    golden = case.json
    recipe = RECIPES[golden["config"].removesuffix(".yaml")]
    cfg = setup_cfg(str(CONFIGS / recipe), ["MODEL.DEVICE", "cpu"])
    configure_solver(cfg, golden["solver"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["initial_lr"] if "initial_lr" in group else group["lr"], group)
        for group in optimizer.param_groups
        for p in group["params"]
    }
    released = golden["per_parameter"]
    converted = convert({name: torch.zeros(1) for name in released}, "alphaction").weights
    expected = dict(zip(converted, released.values(), strict=True))
    case.check("trained parameters", set(found) == set(expected), "are others")
    wrong = [
        name
        for name, values in expected.items()
        if name in found
        and not (
            math.isclose(found[name][0], values["lr"], rel_tol=1e-9)
            and math.isclose(found[name][1]["weight_decay"], values["weight_decay"], rel_tol=1e-9)
        )
    ]
    case.check("per_parameter", not wrong, f"differs for {wrong[:3]}")
    momenta = {group["momentum"] for group in optimizer.param_groups}
    case.check("momentum", momenta == {golden["momentum"]}, f"is {momenta}")
    _compare_schedule(case, cfg, optimizer)
    _compare_initial_values(case, dict(model.named_parameters()))


def _compare_schedule(case: GoldenCase, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> None:
    scheduler = build_lr_scheduler(cfg, optimizer)
    for iteration, factor in case.json["schedule_factor_at_iteration"].items():
        scheduler.last_epoch = int(iteration)
        factors = [
            rate / group["initial_lr"]
            for rate, group in zip(scheduler.get_lr(), optimizer.param_groups)
        ]
        ok = all(math.isclose(found, factor, rel_tol=1e-6) for found in factors)
        case.check(f"schedule at {iteration}", ok, f"is {factors[0]}, not {factor}")


def _compare_initial_values(case: GoldenCase, parameters: dict[str, Tensor]) -> None:
    """Constants are equal; of random values, mean and spread are, as far as chance allows."""
    for name, values in case.json["initial_value_statistics_of_head"].items():
        (ours,) = convert({name: torch.zeros(1)}, "alphaction").weights
        x = parameters[ours].detach().double()
        spread = values["std"]
        constant = values["min"] == values["max"] or "dense_params" in name
        slack = 1e-6 if constant else 0.05 * spread
        mean_slack = 1e-6 if constant else 6 * spread / math.sqrt(x.numel())
        ok = abs(x.std(unbiased=False).item() - spread) <= slack + 1e-3 * spread
        ok &= abs(x.mean().item() - values["mean"]) <= 2 * mean_slack
        low, high = x.min().item(), x.max().item()
        width = 1e-6 if constant else spread * 2
        ok &= abs(low - values["min"]) <= width and abs(high - values["max"]) <= width
        case.check(f"initial {name}", ok, f"mean {x.mean():g}, std {x.std():g}, {low:g}..{high:g}")
