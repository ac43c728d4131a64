"""Cases of the action head: pooling, memory, interaction, classifier, losses."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_roi_heads
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from alphaaction_d2 import add_alphaaction_config
from alphaaction_d2.checkpoint.sources import convert
from alphaaction_d2.memory.pool import MemoryPool
from alphaaction_d2.modeling.roi_heads import ActionROIHeads
from alphaaction_d2.structures import MemoryWindow

from .case import LAST_PIXEL, GoldenCase
from .interaction import STRUCTURES, UNUSED_KEYS, reshape_gradients
from .losses import (
    NO_ACCURACIES,
    RELEASED,
    compare_losses,
    compare_results,
    released_groups,
    with_pose,
)
from .memory import filled_pool, persons_of_clips

BOX_CONVENTION = "released boxes include their last pixel, ours end behind it"


def head_config(config: dict) -> CfgNode:
    """Our configuration of a released head."""
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    head, ia = config["roi_action_head"], config["ia_structure"]
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NAME = "ActionROIHeads"
    node = cfg.MODEL.ROI_ACTION_HEAD
    node.POOLER_RESOLUTION = head["POOLER_RESOLUTION"]
    node.POOLER_SAMPLING_RATIO = head["POOLER_SAMPLING_RATIO"]
    node.BOX_EXTEND_TEST = tuple(config["test_extend_scale"])
    node.POOL_TO_LAST_PIXEL = True
    node.FC_DIM = head["MLP_HEAD_DIM"]
    node.DROPOUT = head["DROPOUT_RATE"]
    node.LOSS = "focal"
    node.FOCAL_GAMMA, node.FOCAL_ALPHA = head["FOCAL_LOSS"]["GAMMA"], head["FOCAL_LOSS"]["ALPHA"]
    groups = released_groups(_group_sizes(head), _loss_weights(head))
    node.GROUP_NAMES = tuple(group.name for group in groups)
    node.GROUP_SIZES = tuple(group.stop - group.start for group in groups)
    node.GROUP_LOSS_WEIGHTS = tuple(group.loss_weight for group in groups)
    if ia["ACTIVE"]:
        _configure_interaction(cfg, ia)
    return cfg


def _configure_interaction(cfg: CfgNode, ia: dict) -> None:
    node, memory = cfg.MODEL.INTERACTION, cfg.MODEL.MEMORY
    node.NAME = STRUCTURES[ia["STRUCTURE"]].__name__
    blocks = ia["I_BLOCK_LIST"]
    if ia["STRUCTURE"] == "parallel":
        blocks = [kind for layer in blocks for kind in layer]
    node.BLOCKS = tuple(blocks)
    node.DIM, node.DIM_OUT = ia["DIM_INNER"], ia["DIM_OUT"]
    node.DROPOUT, node.FUSION = ia["DROPOUT"], ia["FUSION"]
    node.LAYER_NORM, node.TEMPORAL_POSITION = ia["LAYER_NORM"], ia["TEMPORAL_POSITION"]
    node.ATTEND_PADDING = True
    node.MAX_PERSONS, node.MAX_OBJECTS = ia["MAX_PERSON"], ia["MAX_OBJECT"]
    memory.WINDOW, memory.STRIDE = tuple(ia["LENGTH"]), ia["MEMORY_RATE"]
    memory.MAX_PERSONS, memory.REWEIGHT = ia["MAX_PER_SEC"], ia["PENALTY"]
    memory.DTYPE = "float32"


def _group_sizes(head: dict) -> dict[str, int]:
    keys = ("PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION")
    return {name: head[f"NUM_{key}_CLASSES"] for name, key in zip(RELEASED, keys)}


def _loss_weights(head: dict) -> dict[str, float]:
    return {f"loss_{x}": head[f"{name.upper()}_LOSS_WEIGHT"] for name, x in RELEASED.items()}


def our_head_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a released head under our names, relative to the ROI heads."""
    converted = convert({f"roi_heads.action.{k}": x for k, x in weights.items()}, "alphaction")
    assert not converted.left_over, converted.left_over
    return {name.removeprefix("roi_heads."): x for name, x in converted.weights.items()}


def load_head(case: GoldenCase, heads: ActionROIHeads) -> set[str]:
    """Give the heads the case's parameters; returns our names of those that ours has no use for."""
    keys = heads.load_state_dict(our_head_weights(case.params()), strict=False)
    for name in keys.missing_keys:
        case.fail(f"param of {name}", "is missing in the case")
    unused = set(keys.unexpected_keys)
    strange = {name for name in unused if ".person_key_projection." not in name}
    if strange:
        case.fail("param/*", f"ours has no {', '.join(sorted(strange))}")
    if unused - strange:
        case.note(UNUSED_KEYS)
    return unused


def our_head_name(name: str) -> str:
    """Our name of an entry of a released head, relative to the ROI heads."""
    return next(iter(our_head_weights({name: torch.zeros(1)})))


class HeadCase:
    """Heads with the case's parameters, and what flows through them."""

    def __init__(self, case: GoldenCase, *, training: bool) -> None:
        self.case = case
        config = case.config
        stride = round(1 / config["roi_action_head"]["POOLER_SCALE"])
        self.shapes = {
            name: ShapeSpec(channels=config[f"{name}_channels"], stride=stride)
            for name in ("slow", "fast")
        }
        self.cfg = head_config(config)
        self.heads: ActionROIHeads = build_roi_heads(self.cfg, self.shapes)
        load_head(case, self.heads)
        self.heads.train(training)
        self.seen: dict[str, object] = {}
        case.note(BOX_CONVENTION)
        self.heads.pooler.register_forward_hook(self._keep("pooler"))
        self.heads.predictor.register_forward_hook(self._keep("predictor"))
        self.heads.head.fc2.register_forward_hook(self._keep("fc2"))
        if self.heads.interaction is not None:
            self.heads.interaction.register_forward_hook(self._keep("interaction"))

    def _keep(self, name: str):
        def hook(module: nn.Module, args: tuple, out: object) -> None:
            self.seen[name] = (args, out)

        return hook

    def images(self, number: int) -> ImageList:
        """What the heads want to know of the pictures: their sizes."""
        return ImageList(torch.zeros(number, 1), [self.case.image_size] * number)

    def objects(self) -> list[Instances]:
        boxes = self.case["in/object_boxes"] + LAST_PIXEL
        return [
            Instances(self.case.image_size, boxes=Boxes(rows), scores=torch.ones(len(rows)))
            for rows in boxes.split(self.case.counts("in/objects_per_clip"))
        ]

    def compare_common(self) -> None:
        case = self.case
        case.compare("out/logits", self.seen["predictor"][1])
        case.compare("mid/fc2_before_relu", self.seen["fc2"][1])
        if "interaction" in self.seen:
            (_, memory), (feature, _) = self.seen["interaction"]
            case.compare("mid/memory", memory.features.flatten(1, 2))
            case.compare("mid/ia_feature", feature)

    def object_features(self) -> Tensor:
        clips = self.seen["interaction"][0][0]
        return torch.cat([clip.objects.roi_features for clip in clips])


def check_training(case: GoldenCase) -> None:
    """One forward and backward pass in training."""
    run = HeadCase(case, training=True)
    config, heads = case.config, run.heads
    counts = case.counts("in/persons_per_clip")
    proposals = persons_of_clips(case.image_size, case["in/proposals"] + LAST_PIXEL, counts)
    groups = heads.predictor.groups
    labels = with_pose(case, case["in/labels"], groups)
    targets = [
        Instances(case.image_size, gt_classes=x, gt_boxes=Boxes(b))
        for x, b in zip(labels.split(counts), case["in/gt_boxes"].split(counts))
    ]
    memory = None
    if heads.interaction is not None:
        ia = config["ia_structure"]
        pool = filled_pool(
            case,
            channels=heads.num_channels,
            window=ia["LENGTH"],
            stride=ia["MEMORY_RATE"],
            persons=ia["MAX_PER_SEC"],
            reweight=ia["PENALTY"],
        )
        pool.err = config["cur_loss"]
        places = list(zip(case.names("in/query_movie_ids"), case.counts("in/query_timestamps")))
        memory = pool.read_batch(places, training=True)
    maps = {name: case.raw(f"in/{name}").requires_grad_() for name in run.shapes}
    clips = heads.pool(run.images(len(counts)), maps, proposals, run.objects())
    losses = heads.losses(clips, targets, memory)
    run.compare_common()
    total = compare_losses(case, losses, config["loss_weights"])
    case.skip([f"out/accuracy_{released}" for released in RELEASED.values()], NO_ACCURACIES)
    case.compare("out/person_pooled", torch.cat([x.persons.roi_features for x in clips]))
    boxes = torch.cat([x.persons.proposal_boxes.tensor for x in clips])
    case.compare("out/person_pooled_boxes", boxes - LAST_PIXEL)
    if "out/object_pooled" in case:
        case.compare("out/object_pooled", run.object_features())
    total.backward()
    reshape_gradients(case)
    parameters = dict(heads.named_parameters())
    ours = {f"param/{name}": parameters.get(our_head_name(name)) for name in case.params()}
    gradients = {name: None if p is None else p.grad for name, p in ours.items()}
    case.compare_gradients({**gradients, **{name: x.grad for name, x in maps.items()}})


@torch.no_grad()
def check_testing(case: GoldenCase) -> None:
    """All clips are pooled and stored, then all are classified."""
    run = HeadCase(case, training=False)
    heads = run.heads
    counts = case.counts("in/persons_per_clip")
    proposals = persons_of_clips(case.image_size, case["in/boxes"] + LAST_PIXEL, counts)
    maps = {name: case.raw(f"in/{name}") for name in run.shapes}
    clips = heads.pool(run.images(len(counts)), maps, proposals, run.objects())
    (_, pooled_boxes), rois = run.seen["pooler"]
    persons = [
        (boxes.tensor[:n], maps[:n])
        for n, boxes, maps in zip(counts, pooled_boxes, rois.split([len(x) for x in pooled_boxes]))
    ]
    case.compare("mid/extended_boxes", torch.cat([boxes for boxes, _ in persons]))
    roi = torch.cat([rows for _, rows in persons])
    case.compare("mid/person_roi_before_max", roi.reshape(case["mid/person_roi_before_max"].shape))
    case.compare("out/stage1_person_pooled", torch.cat([x.persons.roi_features for x in clips]))
    boxes = torch.cat([x.persons.proposal_boxes.tensor for x in clips])
    case.compare("out/stage1_person_boxes", boxes - LAST_PIXEL)
    if "out/stage1_object_pooled" in case:
        case.compare("out/stage1_object_pooled", torch.cat([x.objects.roi_features for x in clips]))
    places = [
        {"video_id": movie, "timestamp": second}
        for movie, second in zip(case.names("in/movie_ids"), case.counts("in/timestamps"))
    ]
    memory = None
    if heads.interaction is not None:
        memory = _two_pass_memory(run, places, clips)
    results = heads.classify(clips, memory)
    run.compare_common()
    for result in results:
        result.pred_boxes = Boxes(result.pred_boxes.tensor - LAST_PIXEL)
    compare_results(case, results, heads.predictor.groups[-1].stop)


def _two_pass_memory(run: HeadCase, places: list[dict], clips: list) -> MemoryWindow:
    """What every clip sees of the others when all have been stored."""
    keyframes = [
        (x["video_id"], x["timestamp"], len(clip.persons)) for x, clip in zip(places, clips)
    ]
    pool = MemoryPool(run.cfg, run.heads.num_channels, keyframes=keyframes)
    writes = [pool.prepare(x, clip.persons) for x, clip in zip(places, clips)]
    pool.update(writes, 1.0)
    return pool.read_batch([place[:2] for place in keyframes], training=False)


def check_pooling(case: GoldenCase) -> None:
    """Every time index is pooled by itself; the frames enter the pooler as channels."""
    config = case.config
    size = config["resolution"]
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    pooler = ROIPooler(
        output_size=size,
        scales=[config["spatial_scale"]],
        sampling_ratio=config["sampling_ratio"],
        pooler_type=cfg.MODEL.ROI_ACTION_HEAD.POOLER_TYPE,
    )
    features = case.raw("in/features").requires_grad_()
    boxes = [Boxes(rows) for rows in case["in/boxes"].split(case.counts("in/counts"))]
    pooled = pooler([features.flatten(1, 2)], boxes)
    pooled = pooled.unflatten(1, features.shape[1:3])
    case.compare("out/pooled", pooled)
    (pooled * case.raw("in/grad_projection")).sum().backward()
    case.compare_gradients({"features": features.grad})
