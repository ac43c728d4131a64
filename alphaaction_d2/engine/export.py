"""A trained model as two graphs that run without torch: ONNX, and torch.export's own files.

The first graph makes RoI features of a clip and its boxes, the second scores of features and a
memory window. What lies between them (scaling, thresholds, identities, the memory itself) is in
`alphaaction_d2.deploy`, with what `description` writes down of the configuration.

Shape letters: R persons of a clip, O objects, C channels, K RoI grid side, S slots and M persons a
slot of the memory window. A graph sees one clip at a time.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..config import check_keys, whole
from ..deploy.description import FEATURES, FILE, INT8, SCORES, Description, MemoryDescription
from ..memory.pool import MemoryPool, has_frozen_memory
from ..modeling.action_output import action_scores
from ..modeling.interaction.aia import InteractionAggregation
from ..modeling.interaction.build import InteractionModule, InteractionSum
from ..modeling.interaction.hgnn import HGNN
from ..modeling.interaction.igmn import IGMN
from ..modeling.meta_arch import ActionRCNN
from ..modeling.roi_heads import ActionROIHeads, fuse
from ..structures import BoxChoice, ClipFeatures, MemoryWindow
from ..tracking.tracker import tracking_options
from ..version import __version__
from .inference import build_frozen_model, uses_memory

OPSET = 20  # the first with everything that is used; RoIAlign's half pixels are of 16


_OF_PERSONS = ("person_ids", "roi_maps", "person_boxes", "pooled_boxes")


class FeatureGraph(nn.Module):
    """Clip and boxes to RoI features: the expensive half."""

    def __init__(self, model: ActionRCNN, memory_model: ActionRCNN | None) -> None:
        """Take a model, and the network whose features are remembered, if that is another one."""
        super().__init__()
        self.model, self.memory_model = model, memory_model

    def forward(
        self, clip: Tensor, person_boxes: Tensor, object_boxes: Tensor
    ) -> dict[str, Tensor]:
        """
        Args:
            clip: (1, 3, T, H, W) float32, normalised and padded.
            person_boxes: (R, 4) XYXY in its pixels, already enlarged. object_boxes: (O, 4).
        """
        boxes = torch.cat([person_boxes, object_boxes])
        count = person_boxes.shape[0]
        rois = _rois(self.model, clip, boxes)
        features = rois.amax(dim=(2, 3))
        found = {"person_features": features[:count], "object_features": features[count:]}
        if self.model.roi_heads.needs_roi_maps:
            found["roi_maps"] = rois[:count]
        if self.memory_model is not None:
            rois = _rois(self.memory_model, clip, person_boxes)
            found["memory_features"] = rois.amax(dim=(2, 3))
        return found


def _rois(model: ActionRCNN, clip: Tensor, boxes: Tensor) -> Tensor:
    heads = model.roi_heads
    if heads.pool_to_last_pixel:
        boxes = boxes - boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    return heads.pooler(heads.over_time(model.backbone(clip)), [_Rows(tensor=boxes)])


class ScoreGraph(nn.Module):
    """Features and memory window to scores: the cheap half."""

    def __init__(self, model: ActionRCNN, before: int) -> None:
        """Take a model whose window has so many slots before the clip."""
        super().__init__()
        self.heads: ActionROIHeads = model.roi_heads
        # Where the clip is in the window is part of the graph.
        self.window: Any = type("_Window", (MemoryWindow,), {"centre": before})

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give `scores`, (R, K), of the inputs that :func:`score_inputs` lists."""
        features = inputs["person_features"]
        heads, x = self.heads, features
        if heads.interaction is not None:
            for name in _OF_PERSONS:
                if name in inputs:  # or torch.export takes them for numbers of their own
                    torch._check(inputs[name].shape[0] == features.shape[0])
            persons = _Rows(
                roi_features=features,
                person_ids=inputs["person_ids"],
                roi_maps=inputs.get("roi_maps"),
                proposal_boxes=_Rows(tensor=inputs.get("person_boxes")),
            )
            objects: Any = _Rows(roi_features=inputs["object_features"])
            pooled: Any = _Rows(tensor=inputs.get("pooled_boxes"))
            clip = ClipFeatures(persons, objects, pooled_boxes=pooled)  # type: ignore[arg-type]
            keys = ("memory_features", "memory_valid", "memory_ids")
            memory = [inputs[key][None] if key in inputs else None for key in keys]
            context, _ = heads.interaction([clip], self.window(*memory, *[None] * 4))
            x = fuse(features, context, heads.fusion)
        logits = heads.predictor(heads.head(x))
        return {"scores": action_scores(logits, heads.predictor.groups)}


class _Rows(SimpleNamespace):
    """What modules read of `Instances` and `Boxes`, whose lengths would be constants of a graph."""


def export_model(
    cfg: CfgNode, model: ActionRCNN, class_names: list[str], folder: str | Path
) -> None:
    """Write a model's graphs and their description into a folder.

    Args:
        cfg: of the model.
        model: with its weights, not compiled, on the CPU.

    Raises:
        ValueError: a part of the configuration cannot be exported, and which; or ONNX is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'alphaaction_d2[export]'") from None
    folder = Path(folder)
    about = describe(cfg, model, class_names)
    memory_model, before, slots = None, 0, 0
    if about.memory is not None:
        before, slots = about.memory.window[0], sum(about.memory.window) + 1
        memory_model = build_frozen_model(cfg) if has_frozen_memory(cfg) else None
    if memory_model is not None:
        both = [x.backbone.size_divisibility for x in (memory_model, model)]
        if both[0] != both[1]:
            raise ValueError(
                f"MODEL.MEMORY.FROZEN_CONFIG: pictures in multiples of {both[0]}, the model's in "
                f"those of {both[1]}: they cannot be exported together"
            )
    model = model.eval().requires_grad_(False)
    features = FeatureGraph(model, memory_model).eval()
    side = max(about.multiple, 32)
    box = torch.tensor([[4.0, 5.0, 30.0, 31.0]])
    example = {
        "clip": torch.zeros(1, 3, about.num_frames, 2 * side, 3 * side),
        "person_boxes": box.repeat(3, 1),
        "object_boxes": box.repeat(2, 1),
    }
    to_score = score_inputs(about, model.roi_heads, slots)
    # From 2 on, says torch.export, which makes special cases of 0 and 1; there are none in here.
    persons, things = ({0: torch.export.Dim(x, min=2)} for x in ("persons", "objects"))
    any_size = {3: torch.export.Dim.DYNAMIC, 4: torch.export.Dim.DYNAMIC}
    kinds = {"clip": any_size, "object": things, "memory": None}
    shapes = [{x: kinds.get(x.split("_")[0], persons) for x in y} for y in (example, to_score)]
    scores = ScoreGraph(model, before).eval()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FILE, INT8):  # of another export; without the first it is no folder of one
        (folder / name).unlink(missing_ok=True)
    for name, graph, inputs, arguments, shape in (
        (FEATURES, features, example, tuple(example.values()), tuple(shapes[0].values())),
        (SCORES, scores, to_score, (to_score,), (shapes[1],)),
    ):
        program = _export(graph, arguments, shape)
        torch.export.save(program, folder / Path(name).with_suffix(".pt2"))
        _write_onnx(program, folder / name, list(inputs), list(graph(*arguments)))
    about.write(folder, __version__)


def score_inputs(about: Description, heads: ActionROIHeads, slots: int) -> dict[str, Tensor]:
    """Make an example of what the graph of scores reads: three persons and two objects."""
    inputs = {"person_features": torch.zeros(3, heads.num_channels)}
    if heads.interaction is None:
        return inputs
    inputs["object_features"] = torch.zeros(2, heads.num_channels)
    inputs["person_ids"] = torch.arange(3)
    if heads.needs_roi_maps:
        inputs["roi_maps"] = torch.zeros(3, heads.num_channels, *heads.pooler.output_size)
        inputs["person_boxes"] = torch.tensor([[4.0, 5.0, 30.0, 31.0]]).repeat(3, 1)
        inputs["pooled_boxes"] = inputs["person_boxes"].clone()
    if about.memory is not None:
        shape = (slots, about.memory.max_persons)
        inputs["memory_features"] = torch.zeros(*shape, about.memory.channels)
        inputs["memory_valid"] = torch.zeros(shape, dtype=torch.bool)
        inputs["memory_ids"] = torch.full(shape, -1)
    return inputs


def describe(cfg: CfgNode, model: ActionRCNN, class_names: list[str]) -> Description:
    """Say what an exported model is to be fed with; ValueError, in one line, for what cannot be
    exported."""
    check_exportable(cfg, model)
    choice, node, memory = BoxChoice.of(cfg), cfg.INPUT, cfg.MODEL.MEMORY
    check_keys(cfg, "MODEL.MEMORY", {"DELAY": whole(-1, 10_000)})
    remembered = None
    if uses_memory(model):
        pool = MemoryPool(cfg, model.roi_heads.memory_channels)  # which checks the keys
        remembered = MemoryDescription(
            window=tuple(memory.WINDOW),
            stride=memory.STRIDE,
            max_persons=memory.MAX_PERSONS,
            channels=pool.num_channels,
            dtype=memory.DTYPE,
            slots_per_second=memory.SLOTS_PER_SECOND,
            delay=memory.DELAY,
            fresh_centre=pool.fresh_centre,
            own_tracks_first=pool.own_tracks_first,
        )
    predictor = model.roi_heads.predictor
    return Description(
        class_names=class_names,
        num_frames=node.NUM_FRAMES,
        sampling_rate=node.SAMPLING_RATE,
        clip_fps=node.CLIP_FPS,
        short_side=node.MIN_SIZE_TEST,
        max_long_side=node.MAX_SIZE_TEST,
        mean=tuple(cfg.MODEL.PIXEL_MEAN),
        std=tuple(cfg.MODEL.PIXEL_STD),
        multiple=max(model.backbone.size_divisibility if model.pad_to_stride else 1, 1),
        min_person_score=choice.min_person_score,
        min_object_score=choice.min_object_score,
        max_objects=choice.max_objects,
        extend=tuple(model.roi_heads.box_extend_test),
        min_score=predictor.score_thresh,
        multiply_person_score=predictor.multiply_person_score,
        memory=remembered,
        tracking=tracking_options(cfg) if cfg.TRACKER_HEADS.TRACKER_NAME else None,
        keep_given_ids=cfg.TRACKER_HEADS.KEEP_GIVEN_IDS,
    )


def check_exportable(cfg: CfgNode, model: nn.Module) -> None:
    """Raise ValueError, naming the key, for what the graphs or the runner do not have."""
    node, heads = cfg.MODEL, getattr(model, "roi_heads", None)
    interaction = getattr(heads, "interaction", None)
    tracker = cfg.TRACKER_HEADS.TRACKER_NAME
    for key, value, is_there in (
        ("MODEL.META_ARCHITECTURE", node.META_ARCHITECTURE, type(model) is ActionRCNN),
        ("MODEL.ROI_HEADS.NAME", node.ROI_HEADS.NAME, type(heads) is ActionROIHeads),
        ("MODEL.INTERACTION.NAME", node.INTERACTION.NAME, _is_exportable(interaction)),
        ("MODEL.MEMORY.DETECTOR_CHANNELS", (n := node.MEMORY.DETECTOR_CHANNELS), not n),
        ("INPUT.MAX_HANDS", cfg.INPUT.MAX_HANDS, not cfg.INPUT.MAX_HANDS),
        ("TEST.AUG.ENABLED", True, not cfg.TEST.AUG.ENABLED),
        ("TEST.ENSEMBLE", tuple(cfg.TEST.ENSEMBLE), not cfg.TEST.ENSEMBLE),
        ("TRACKER_HEADS.TRACKER_NAME", tracker, tracker in ("", "PersonTracker")),
    ):
        if not is_there:
            raise ValueError(f"{key} {value!r} cannot be exported (docs/deploy.md lists what can)")


def _is_exportable(module: InteractionModule | None) -> bool:
    parts = module.parts if isinstance(module, InteractionSum) else [module]
    kinds = (InteractionAggregation, HGNN, IGMN, type(None))
    return all(isinstance(x, kinds) for x in parts)


def _export(module: nn.Module, inputs: tuple, shapes: tuple) -> torch.export.ExportedProgram:
    """Trace a module; ValueError with torch's first line where it cannot be."""
    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many kinds
        what = "the network" if isinstance(module, FeatureGraph) else "the interaction"
        line = str(error).strip().splitlines()[0]
        raise ValueError(f"{what} cannot be exported, torch.export says: {line}") from error


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    torch.onnx.export(
        program,
        (),
        str(path),
        input_names=inputs,
        output_names=outputs,
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table={
            torch.ops.aten.atan2.default: _atan2,
            torch.ops.aten.sort.stable: _sort,
        },
    )


def _sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    """Sort in ONNX's operators: its TopK leaves equal values in order."""
    from onnxscript import opset20

    op: Any = opset20
    axis = op.Constant(value_ints=[dim])
    count = op.Gather(op.Shape(x), axis)
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _atan2(y: Any, x: Any) -> Any:
    """Angles, in the operators of ONNX, which have the arc tangent of one number only. (torch's own
    translation tells -pi where y is 0 and x negative.)"""
    from onnxscript import opset20

    op: Any = opset20
    pi = op.CastLike(op.Constant(value_float=math.pi), x)
    zero = op.CastLike(op.Constant(value_float=0.0), x)
    angle = op.Atan(op.Div(y, x))
    left = op.Where(op.Less(y, zero), op.Sub(angle, pi), op.Add(angle, pi))
    angle = op.Where(op.Less(x, zero), left, angle)
    return op.Where(op.IsNaN(angle), zero, angle)
