"""Detectors by name: torchvision's, and those that transformers loads, RF-DETR before all."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import torch
from torchvision.models import detection as torchvision_detection
from torchvision.models import get_model, get_model_weights, list_models

from ..checkpoint.checkpointer import load_for_inference
from ..model_zoo.files import is_here
from .picture_boxes import PictureBoxes, name_classes

AUTO = "auto"
TORCHVISION, TRANSFORMERS = "torchvision:", "transformers:"
RF_DETR = "Roboflow/rf-detr-"
# With the Apache license. The two larger ones have Roboflow's own (PML 1.0), which wants an
# account, and so have the largest ones that also find masks.
RF_DETR_SIZES = ("nano", "small", "medium", "base", "base-2", "large")


def choose_detector(device: str) -> str:
    """Name the detector that "auto" means: the best that is installed and that the device can run.

    RF-DETR if transformers has it, in the size that a GPU or a CPU runs several times a second;
    else torchvision's best Faster R-CNN, which takes seconds a picture on a CPU, or its fast one.
    """
    on_gpu = torch.device(device).type != "cpu"
    if has_rf_detr():
        return f"{TRANSFORMERS}{RF_DETR}{'medium' if on_gpu else 'nano'}"
    on_cpu = "fasterrcnn_mobilenet_v3_large_fpn"
    return f"{TORCHVISION}{'fasterrcnn_resnet50_fpn_v2' if on_gpu else on_cpu}"


def has_rf_detr() -> bool:
    """Whether a transformers is installed that knows RF-DETR."""
    if find_spec("transformers") is None:
        return False
    import transformers  # slow: only where a detector is asked for

    return hasattr(transformers, "RfDetrForObjectDetection")


def rf_detr_name(name: str) -> str:
    """Give the full name of what `transformers:` names: "rf-detr-nano" is Roboflow's; ValueError
    for a size of RF-DETR that has no free license, or that there is not."""
    full = name if "/" in name or not name.lower().startswith("rf-detr-") else f"Roboflow/{name}"
    if full.lower().startswith(RF_DETR.lower()):
        size = full[len(RF_DETR) :].lower()
        if size not in RF_DETR_SIZES:
            sizes = ", ".join(RF_DETR_SIZES)
            raise ValueError(f"{full}: the sizes of RF-DETR with the Apache license are {sizes}")
        return RF_DETR + size
    return full


def person_score(config: str) -> float | None:
    """From which score on the persons of a named detector are to be believed; None: unknown.

    RF-DETR and its kin score each class by itself, and are used from 0.5 on by their authors. The
    scores of R-CNNs are shares among the classes, and 0.8 is what AVA's persons are chosen by.
    """
    if config.startswith(TRANSFORMERS):
        return 0.5
    return 0.8 if config.startswith(TORCHVISION) else None


def license_of(config: str) -> str:
    """Say under which license the published weights of a named detector are."""
    if config.startswith(TORCHVISION):
        return "BSD-3-Clause"
    if config.startswith(TRANSFORMERS):
        is_known = rf_detr_name(config[len(TRANSFORMERS) :]).startswith(RF_DETR)
        return "Apache-2.0" if is_known else "license: see the model card"
    return "CC BY-SA 3.0"  # of detectron2's model zoo


def has_weights(config: str) -> bool:
    """Whether the weights of a named detector are on this machine, as far as it can be loaded."""
    kind, _, name = config.partition(":")
    if f"{kind}:" == TRANSFORMERS and find_spec("huggingface_hub") is not None:
        from huggingface_hub import try_to_load_from_cache

        name = rf_detr_name(name)
        cached = Path(name).is_dir() or try_to_load_from_cache(name, "model.safetensors")
        return cached is True or isinstance(cached, str)
    if f"{kind}:" == TORCHVISION and name in list_models(module=torchvision_detection):
        return is_here(get_model_weights(name).DEFAULT.url)
    return True


class _NamedDetector(ABC):
    """A detector of another library, whose boxes below a score are left out."""

    model: Any
    names: list[str | None]
    score_threshold: float

    @torch.no_grad()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[PictureBoxes]:
        """Find boxes in (H, W, 3) uint8 RGB pictures."""
        images = [torch.from_numpy(np.array(p.transpose(2, 0, 1))) for p in pictures]
        found = []
        for picture, result in zip(pictures, self._results(images) if images else []):
            boxes, scores, labels = (result[k].cpu().numpy() for k in ("boxes", "scores", "labels"))
            size = (picture.shape[1], picture.shape[0])
            found.append(
                PictureBoxes.of(boxes, scores, labels, self.names, size, self.score_threshold)
            )
        return found

    @abstractmethod
    def _results(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Ask the network about (3, H, W) uint8: boxes in their pixels, scores and labels."""


class TorchvisionDetector(_NamedDetector):
    """A detector of torchvision, with the weights that it publishes or with others."""

    def __init__(
        self, name: str, *, device: str, score_threshold: float, short_side: int = 0
    ) -> None:
        """Build what torchvision calls so, ValueError if it has none; the weights of `model` are
        random until they are loaded. Boxes below the threshold are left out; `short_side` 0 scales
        as torchvision does."""
        known = list_models(module=torchvision_detection)
        if name not in known:
            raise ValueError(f"{TORCHVISION}{name}: torchvision has {', '.join(known)}")
        published = get_model_weights(name).DEFAULT
        self.address: str = published.url
        self.names = name_classes(published.meta["categories"])
        sizes = {"min_size": short_side, "max_size": max(1333, short_side)} if short_side else {}
        classes = len(self.names)
        built = get_model(name, weights=None, weights_backbone=None, num_classes=classes, **sizes)
        self.model = built.to(device).eval()
        self.score_threshold = score_threshold
        # Boxes below it need not take part in the suppression of overlapping ones.
        suppresses: Any = getattr(self.model, "roi_heads", self.model)
        suppresses.score_thresh = score_threshold

    def _results(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        device = next(self.model.parameters()).device
        return self.model([x.to(device).float() / 255 for x in images])


def load_torchvision_detector(
    name: str, weights: str, *, device: str, score_threshold: float, short_side: int = 0
) -> TorchvisionDetector:
    """Build a detector of torchvision and load its weights, see `load_detector`."""
    detector = TorchvisionDetector(
        name, device=device, score_threshold=score_threshold, short_side=short_side
    )
    with _quiet("fvcore.common.checkpoint"):
        load_for_inference(detector.model, weights or detector.address)
    return detector


class TransformersDetector(_NamedDetector):
    """A detector that transformers loads by its name at Hugging Face, or from a folder."""

    def __init__(self, model: Any, processor: Any, *, device: str, score_threshold: float) -> None:
        """Take a model that gives `logits` and `pred_boxes`, such as `RfDetrForObjectDetection`,
        and what scales pictures for it and turns its answer into boxes."""
        self.model = model.to(device).eval()
        self.processor = processor
        self.score_threshold = score_threshold
        names = [model.config.id2label.get(i, "N/A") for i in range(model.config.num_labels)]
        coco = get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT.meta["categories"]
        if names[0] == "LABEL_0" and len(names) == len(coco):  # not named, but COCO's all the same
            names = coco
        self.names = name_classes(names)

    def _results(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
        return self.processor.post_process_object_detection(
            self.model(**inputs),
            threshold=self.score_threshold,
            target_sizes=[tuple(x.shape[1:]) for x in images],
        )


def load_transformers_detector(
    name: str, *, device: str, score_threshold: float
) -> TransformersDetector:
    """Load a detector by its name at Hugging Face, such as "Roboflow/rf-detr-nano", or a folder.

    Raises:
        ValueError: transformers is not installed, or the weights do not cover the network.
        FileNotFoundError: it cannot be downloaded, or is no detector.
    """
    config = TRANSFORMERS + (name := rf_detr_name(name))
    if find_spec("transformers") is None:
        raise ValueError(f"{config}: needs transformers: pip install 'alphaaction_d2[backbones]'")
    import transformers

    try:
        # What is there is not asked for again; else five tries would take half a minute.
        here = {"local_files_only": has_weights(config)}
        if not here["local_files_only"]:
            _reach(name)
        settings = transformers.AutoConfig.from_pretrained(name, **here)
        # The files of RF-DETR may name DETR's processor, which reads its scores in another way.
        is_rf_detr = settings.model_type == "rf_detr"
        processors: Any = transformers.AutoImageProcessor
        if is_rf_detr:
            processors = transformers.RfDetrImageProcessor
        processor = processors.from_pretrained(name, **here)
        with _quiet("transformers"):
            model, loaded = transformers.AutoModelForObjectDetection.from_pretrained(
                name, config=settings, use_safetensors=True, output_loading_info=True, **here
            )
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{config}: cannot be loaded, or downloaded from Hugging Face ({reason[:160]})"
        ) from error
    wrong = sorted([*loaded["missing_keys"], *(x[0] for x in loaded["mismatched_keys"])])
    if wrong:
        raise ValueError(
            f"{config}: weights that do not fit: {len(wrong)} are not in its file, "
            f"such as {wrong[0]}"
        )
    return TransformersDetector(model, processor, device=device, score_threshold=score_threshold)


def _reach(name: str) -> None:
    """Raise OSError at once if Hugging Face cannot be reached, or does not have that name."""
    from huggingface_hub import constants

    address = f"{constants.ENDPOINT}/{name}/resolve/main/config.json"
    with urlopen(Request(address, method="HEAD"), timeout=20):
        pass


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library from listing what is expected while weights are loaded."""
    library = logging.getLogger(name)
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(level)
