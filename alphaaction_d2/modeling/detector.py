"""Any detector as a function from pictures to boxes: those of detectron2, and by name any other."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint.checkpointer import load_for_inference
from ..formats.config_files import ConfigError, merge_config_file, merge_overrides
from ..formats.yaml_files import YAMLFileError
from .coco_detectors import (
    AUTO,
    TORCHVISION,
    TRANSFORMERS,
    choose_detector,
    license_of,
    load_torchvision_detector,
    load_transformers_detector,
)
from .detectron2_zoo import import_model_zoo
from .picture_boxes import PERSON, PictureBoxes, PictureDetector, name_classes

logger = logging.getLogger(__name__)

ZOO_EXAMPLE = "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml"
_MAX_SIZE = 1333  # detectron2's usual limit of the longer side


class Detector:
    """A detection network of detectron2 that takes RGB pictures and answers with numpy arrays.

    Scaling and channel order are those of detectron2's `DefaultPredictor`; unlike it, several
    pictures go through the network together.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        augmentations: Sequence[T.Augmentation],
        channel_order: str,
        class_names: Sequence[str],
        score_threshold: float,
        with_features: bool = False,
    ) -> None:
        """Args:
        model: detectron2's contract: `{"image", "height", "width"}` in, `{"instances"}` out.
        augmentations: deterministic, such as scaling.
        channel_order: "RGB" or "BGR", what the model was trained with.
        class_names: of the model's classes; the one called "person" is a person.
        with_features: give what the box head says of each box, too.
        """
        if channel_order not in ("RGB", "BGR"):
            raise ValueError(f"INPUT.FORMAT {channel_order!r} of the detector: use RGB or BGR")
        self.model = model.eval()
        self.augmentations = T.AugmentationList(augmentations)
        self.channel_order = channel_order
        self.names = name_classes(class_names)
        self.score_threshold = score_threshold
        if with_features:
            heads: Any = getattr(model, "roi_heads", None)
            if not hasattr(heads, "box_pooler"):
                raise ValueError(
                    "--features: the detector has no box head for boxes that it has found; use one "
                    "of the kind Faster or Cascade R-CNN with FPN"
                )
            heads.register_forward_hook(_keep_features)
        if "" not in self.names:
            logger.warning("The detector has no class %r: it gives objects only", PERSON)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[PictureBoxes]:
        """Find boxes in (H, W, 3) uint8 RGB pictures."""
        if not pictures:
            return []
        with warnings.catch_warnings():  # detectron2's anchors use an old form of meshgrid
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            results = self.model(list(map(self._input, pictures)))
        return [self._boxes(r, picture.shape) for r, picture in zip(results, pictures)]

    def _input(self, picture: np.ndarray) -> dict[str, Any]:
        height, width = picture.shape[:2]
        if self.channel_order == "BGR":
            picture = picture[:, :, ::-1]
        scaled = T.AugInput(np.ascontiguousarray(picture))
        self.augmentations(scaled)
        image = torch.as_tensor(scaled.image.astype("float32").transpose(2, 0, 1))
        return {"image": image, "height": height, "width": width}

    def _boxes(self, result: dict[str, Any], shape: tuple[int, ...]) -> PictureBoxes:
        instances = result.get("instances")
        if instances is None or not instances.has("pred_boxes"):
            raise ValueError("the network gives no boxes: its configuration is not of a detector")
        instances = instances.to("cpu")
        return PictureBoxes.of(
            instances.pred_boxes.tensor.numpy(),
            instances.scores.numpy(),
            instances.pred_classes.numpy(),
            self.names,
            (shape[1], shape[0]),
            self.score_threshold,
            instances.box_features.numpy() if instances.has("box_features") else None,
        )


def _keep_features(heads: Any, inputs: tuple, output: tuple) -> None:
    """As a forward hook of detectron2's ROI heads: add `box_features` to the boxes that they find.

    The box head has seen proposals; here it sees what has become of them. Of a cascade it is the
    last one.
    """
    maps, found = [inputs[1][name] for name in heads.box_in_features], output[0]
    head = heads.box_head[-1] if isinstance(heads.box_head, nn.ModuleList) else heads.box_head
    features = head(heads.box_pooler(maps, [x.pred_boxes for x in found])).flatten(1)
    for x, rows in zip(found, features.split([len(x) for x in found])):
        x.box_features = rows


def load_detector(
    config: str,
    weights: str = "",
    *,
    device: str = "",
    score_threshold: float = 0.3,
    short_side: int = 0,
    class_names: Sequence[str] = (),
    opts: Sequence[str] = (),
    with_features: bool = False,
) -> PictureDetector:
    """Build a detector and load its weights, which must cover all of it.

    Args:
        config: a detectron2 configuration (.yaml, or .py of the lazy kind), or the name of one in
            detectron2's model zoo, such as "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml";
            "torchvision:fasterrcnn_resnet50_fpn_v2" and the like, "transformers:rf-detr-nano" and
            the like, or "auto", see `choose_detector`.
        weights: a file or an address; may be left out for a model that has a name.
        device: default: a GPU if there is one.
        score_threshold: boxes with a lower score are left out.
        short_side: pixels to which pictures are scaled; 0: what the configuration says.
        class_names: default: those of the configuration's test set.
        opts: KEY VALUE pairs of a .yaml configuration.
        with_features: see :class:`Detector`.

    Raises:
        OSError: configuration or weights are missing, or cannot be downloaded.
        ValueError: the configuration cannot be used, or the weights do not fit it.
    """
    device = device or _default_device()
    config = resolve_detector(config, device)
    kind, _, name = config.partition(":")
    if f"{kind}:" in (TORCHVISION, TRANSFORMERS):
        if class_names or opts:
            raise ValueError(f"{config}: class names and KEY VALUE pairs are for detectron2's")
        if with_features:
            raise ValueError(f"{config}: --features is for detectron2's detectors")
        _tell(config, weights)
        if f"{kind}:" == TORCHVISION:
            return load_torchvision_detector(
                name,
                weights,
                device=device,
                score_threshold=score_threshold,
                short_side=short_side,
            )
        if weights or short_side:
            raise ValueError(f"{config}: takes no weights or size besides: they belong to its name")
        return load_transformers_detector(name, device=device, score_threshold=score_threshold)
    path, zoo_weights = find_config(config)
    if zoo_weights:
        _tell(config, weights)
    weights = weights or zoo_weights
    if not weights:
        raise ValueError(f"{config}: give the weights of the detector, too: a file or an address")
    build = _build_lazy if path.endswith(".py") else _build_from_yaml
    try:
        model, augmentations, channel_order, datasets, num_classes = build(
            path, device, score_threshold, short_side, opts
        )
    except (KeyError, AssertionError, AttributeError) as error:
        raise _no_detector(config, error) from error
    detector = Detector(
        model,
        augmentations=augmentations,
        channel_order=channel_order,
        class_names=_class_names(class_names, datasets, num_classes),
        score_threshold=score_threshold,
        with_features=with_features,
    )
    load_for_inference(detector.model, weights)
    return detector


def resolve_detector(config: str, device: str = "") -> str:
    """Name the detector that "auto" means here; any other name stays what it is."""
    return choose_detector(device or _default_device()) if config == AUTO else config


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def configured_detector(cfg: CfgNode) -> PictureDetector | None:
    """Load the detector that `MODEL.PERSON_DETECTOR` names, if it names one."""
    node = cfg.MODEL.PERSON_DETECTOR
    if not node.CONFIG:
        return None
    return load_detector(node.CONFIG, node.WEIGHTS, device=cfg.MODEL.DEVICE)


def _tell(config: str, weights: str) -> None:
    """Log which detector is used, and the license of the weights that come with its name."""
    logger.info("Detector: %s (%s)", config, weights or license_of(config))


def _no_detector(config: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{config}: not a configuration of a detector ({reason})")


def find_config(config: str) -> tuple[str, str]:
    """Give the path of a configuration and, for a model of the zoo, the address of its weights."""
    if Path(config).is_file():
        return config, ""
    model_zoo = import_model_zoo()
    for name in (config, f"{config}.yaml", f"{config}.py"):
        try:
            path = model_zoo.get_config_file(name)
        except RuntimeError:
            continue
        if not Path(path).is_file():
            continue
        try:
            return path, model_zoo.get_checkpoint_url(name)
        except RuntimeError:
            return path, ""
    raise FileNotFoundError(
        f"{config}: no such configuration file, and detectron2's model zoo has none of this name "
        f"(it has {ZOO_EXAMPLE} and others); other detectors: {TORCHVISION}NAME, "
        f"{TRANSFORMERS}NAME, {AUTO}"
    )


# model, augmentations, channel order, test sets, number of classes if it is known
_Parts = tuple[nn.Module, list[T.Augmentation], str, Sequence[str], int | None]


def _build_from_yaml(
    path: str, device: str, score_threshold: float, short_side: int, opts: Sequence[str]
) -> _Parts:
    cfg = get_cfg()
    try:
        merge_config_file(cfg, path)
    except (ConfigError, YAMLFileError) as error:
        raise _no_detector(path, error) from error
    merge_overrides(cfg, opts)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    # Boxes below the threshold need not take part in the suppression of overlapping ones.
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score_threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = score_threshold
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    else:
        num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    shortest = short_side or cfg.INPUT.MIN_SIZE_TEST
    longest = max(cfg.INPUT.MAX_SIZE_TEST, shortest)
    # A short side of 0 means "as it is", see detectron2's ResizeShortestEdge.
    augmentations = [T.ResizeShortestEdge([shortest, shortest], longest)]
    return build_model(cfg), augmentations, cfg.INPUT.FORMAT, cfg.DATASETS.TEST, num_classes


def _build_lazy(
    path: str, device: str, score_threshold: float, short_side: int, opts: Sequence[str]
) -> _Parts:
    if opts:
        raise ValueError(f"{path}: KEY VALUE pairs are for .yaml configurations")
    cfg = LazyConfig.load(path)
    test = cfg.dataloader.test
    if short_side:
        augmentations = [T.ResizeShortestEdge([short_side] * 2, max(_MAX_SIZE, short_side))]
    else:
        augmentations = [instantiate(augmentation) for augmentation in test.mapper.augmentations]
    names = test.dataset.names
    datasets = (names,) if isinstance(names, str) else names
    model = instantiate(cfg.model).to(device)
    return model, augmentations, test.mapper.image_format, datasets, None


def _class_names(
    given: Sequence[str], datasets: Sequence[str], num_classes: int | None
) -> Sequence[str]:
    """Name a detector's classes: those given, or those of its test set."""
    if given:
        if num_classes is not None and len(given) != num_classes:
            raise ValueError(f"{len(given)} class names for a detector of {num_classes} classes")
        return given
    names = MetadataCatalog.get(datasets[0]).get("thing_classes") if len(datasets) else None
    if names and num_classes in (None, len(names)):
        return names
    if num_classes == 1:
        logger.info("The detector has one class, taken as %r", PERSON)
        return [PERSON]
    if names:
        what = f"{num_classes} classes, its test set {datasets[0]} has {len(names)}"
    else:
        what = f"{num_classes or 'some'} classes without names"
    raise ValueError(f"the detector has {what}: name its classes in their order")
