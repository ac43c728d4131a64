"""Files of what a network that stands still says of clips, shared by all runs of this network.

A file is named by what it is made of, and written whole or not at all: another network, clip or
box has another name, and a killed run leaves nothing that is half.
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from ..formats.config_files import setup_cfg
from ..formats.writing import write_atomically
from ..memory.file import state_checksum
from ..modeling.meta_arch import ActionRCNN
from ..structures import ClipFeatures

logger = logging.getLogger(__name__)

VERSION = 1  # of the files; others are made anew
# Keys that say how a network is trained or where it comes from, not what it sees.
_WITHOUT_EFFECT = {"FROZEN", "WEIGHTS", "FREEZE_AT", "ACTIVATION_CHECKPOINT"}
# Keys of clips that training does not look at, or that change nothing.
_OF_TESTING = {"MAX_OPEN_VIDEOS", "MIN_SIZE_TEST", "MAX_SIZE_TEST", "PERSON_SCORE_THRESH_TEST"}


def network_checksum(cfg: CfgNode, model: ActionRCNN) -> str:
    """Tell a network from all others that may see something else in the same clip and boxes."""
    head = cfg.MODEL.ROI_ACTION_HEAD
    settings = [
        *map(_settings, [cfg, *(setup_cfg(x) for x, _ in cfg.MODEL.JOINED_BACKBONE.NETWORKS)]),
        *(head.POOLER_RESOLUTION, head.POOLER_SAMPLING_RATIO, head.POOLER_TYPE, cfg.TEST.DTYPE),
        *(head.BOX_EXTEND_TEST, head.POOL_TO_LAST_PIXEL, cfg.MODEL.ROI_HEADS.NAME),
    ]
    weights = {name: x.cpu() for name, x in model.backbone.state_dict().items()}
    return state_checksum({"weights": weights, "settings": as_text(settings)})


def _settings(cfg: CfgNode) -> list:
    """List what a configuration says of how its backbone sees clips."""
    nodes = (cfg.MODEL.BACKBONE, cfg.MODEL.SLOWFAST, cfg.MODEL.VIDEO_BACKBONE)
    return [
        *({k: x for k, x in node.items() if k not in _WITHOUT_EFFECT} for node in nodes),
        *(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.MODEL.PAD_TO_STRIDE),
        *(cfg.INPUT.NUM_FRAMES, cfg.INPUT.SAMPLING_RATE, cfg.INPUT.CLIP_FPS),
    ]


def as_text(settings: object) -> str:
    """Write settings as JSON: lists and tuples are the same, as in a saved configuration."""
    return json.dumps(settings, sort_keys=True)


class FeatureFiles:
    """What one network says of clips, in a folder of its own.

    Attributes:
        clips: how training cuts and augments them, as a text.
    """

    def __init__(self, folder: Path, clips: str = "") -> None:
        self.folder, self.clips = folder, clips

    @classmethod
    def of(cls, cfg: CfgNode, model: ActionRCNN) -> FeatureFiles | None:
        """Those of `model` in `cfg.DATALOADER.STORED_FOLDER`; None where the key is empty, or the
        backbone trains."""
        trains = any(x.requires_grad for x in model.backbone.parameters())
        if trains or not cfg.DATALOADER.STORED_FOLDER:
            return None
        heads = model.roi_heads  # what they ask for is stored, and no more
        asked = f"{VERSION} {heads.needs_roi_maps} {heads.needs_scene}"
        name = state_checksum({"network": network_checksum(cfg, model), "asked": asked})
        clips = {key: x for key, x in cfg.INPUT.items() if key not in _OF_TESTING}
        return cls(Path(cfg.DATALOADER.STORED_FOLDER, name[:16]), as_text(clips))

    def path(self, name: str) -> Path:
        """Where the file of this name is, or would be."""
        return self.folder / f"{name[:32]}.pth"

    def read(self, name: str) -> list[dict]:
        """Read clips, mapped from the file, not loaded; none when it is not there.

        A file that the disk has spoilt is removed, to be made anew.
        """
        path = self.path(name)
        try:
            with torch.serialization.safe_globals([ClipFeatures, Instances, Boxes]):
                return torch.load(path, weights_only=True, mmap=True)
        except FileNotFoundError:
            return []
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            logger.warning("%s: damaged (%s), computed anew", path, type(error).__name__)
            path.unlink(missing_ok=True)
            return []

    def write(self, name: str, clips: list[dict]) -> None:
        """Store clips; raises OSError with the file's name, of a full disk for example."""
        write_atomically(self.path(name), functools.partial(torch.save, clips))


def seen_checksum(clip: dict) -> str:
    """Tell an input of the model in testing from all others by its pictures and boxes."""
    sets = {key: clip[key].get_fields() for key in ("proposals", "objects") if key in clip}
    boxes = {
        f"{key}.{name}": x.tensor if isinstance(x, Boxes) else x
        for key, found in sets.items()
        for name, x in found.items()
    }
    return state_checksum({"video": clip["video"], **boxes})
