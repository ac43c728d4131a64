"""A small folder in the form of EPIC-Kitchens-55, and a small model for it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from alphaaction_d2 import setup_cfg
from alphaaction_d2.data.video import VideoWriter
from tests.helpers import CONFIGS

HEADER = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
VIDEOS = ("P01_01", "P02_03", "P26_01")
SECONDS, FPS, CHANNELS = 8, 8, 6
# Of each video: start, stop, verb and noun; the middles of the first two are of one second.
SEGMENTS = ((0.5, 2.1, 0, 1), (0.9, 1.9, 1, 0), (3.0, 5.0, 1, 2), (5.5, 7.5, 0, 2))
UIDS = {video: [len(SEGMENTS) * i + j for j in range(4)] for i, video in enumerate(VIDEOS)}


def write_kitchen(root: Path) -> Path:
    """Write annotations, videos by participant, boxes, and features as LFB has them."""
    for name in ("annotations", "boxes", "noun_lfb", "frame_lists"):
        (root / name).mkdir(parents=True)
    rows = [HEADER]
    rng = np.random.default_rng(0)
    for video in VIDEOS:
        participant = video[:3]
        folder = root / "videos" / participant
        folder.mkdir(parents=True, exist_ok=True)
        with VideoWriter(folder / f"{video}.mp4", FPS, 64, 48, gop=8) as writer:
            for i in range(SECONDS * FPS):
                writer.write(picture(i))
        (folder / f"{video}.mp4").rename(folder / f"{video}.MP4")
        for uid, (start, stop, verb, noun) in zip(UIDS[video], SEGMENTS):
            times = f"00:00:{start:05.2f},00:00:{stop:05.2f}"
            rows.append(f"{uid},{participant},{video},x,{times},0,0,v,{verb},n,{noun},['n'],[0]")
    (root / "annotations" / "EPIC_train_action_labels.csv").write_text("\n".join(rows) + "\n")
    for kind, count in (("verb", 2), ("noun", 3)):
        names = "".join(f"{i},{kind}-{i},['x']\n" for i in range(count))
        header = f"{kind}_id,class_key,{kind}s\n"
        (root / "annotations" / f"EPIC_{kind}_classes.csv").write_text(header + names)
    for split, videos in (("train", VIDEOS[:2]), ("val", VIDEOS[2:])):
        lines = []
        for video in videos:
            for second in range(SECONDS):
                for name, x, score in (
                    ("hand", 0.1, 0.9),
                    ("left hand", 0.4, 0.6),
                    ("cup", 0.6, 0.8),
                ):
                    y = second / 20
                    lines.append(f"{video},{second},{x},{y},{x + 0.2},{y + 0.3},{name},{score}")
        (root / "boxes" / f"{split}.csv").write_text("\n".join(lines) + "\n")
        frames = [
            {
                30 * s: rng.normal(size=(2, CHANNELS)).astype(np.float32) if s % 4 else []
                for s in range(SECONDS)
            }
            for _ in videos
        ]
        (root / "noun_lfb" / f"{split}_lfb.pkl").write_bytes(pickle.dumps(frames, protocol=2))
        listed = "original_vido_id video_id frame_id path labels\n"
        listed += "".join(f'{v} {i} {n} x.jpg ""\n' for i, v in enumerate(videos) for n in (0, 1))
        (root / "frame_lists" / f"{split}.csv").write_text(listed)
    return root


def picture(number: int) -> np.ndarray:
    """Frame of a video: a bar that moves."""
    frame = np.full((48, 64, 3), 90, np.uint8)
    frame[10:40, number % 60 : number % 60 + 6] = (250, 40, 3 * number % 250)
    return frame


def kitchen_cfg(folder: Path, kind: str, *opts: object) -> CfgNode:
    """The miniature's AIA for verbs or nouns, made smaller still."""
    cfg = setup_cfg(
        str(CONFIGS / "EPIC-Kitchens" / "miniature" / f"{kind}_aia.yaml"),
        [
            *("MODEL.DEVICE", "cpu", "MODEL.SLOWFAST.STEM_CHANNELS", 4, "MODEL.WEIGHTS", ""),
            *("MODEL.SLOWFAST.FROZEN", False, "DATALOADER.STORED_VARIANTS", 0),
            *("MODEL.INTERACTION.DIM", 16, "MODEL.ROI_ACTION_HEAD.FC_DIM", 16),
            *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", f"({2 if kind == 'verb' else 3},)"),
            *("MODEL.MEMORY.WINDOW", "(3,3)", "SOLVER.IMS_PER_BATCH", 2, "INPUT.CLIP_FPS", FPS),
            *("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.STEPS", "(3,)"),
        ],
    )
    if kind == "noun":
        cfg.MODEL.MEMORY.DETECTOR_CHANNELS = CHANNELS
    cfg.DATASETS.FOLDERS = (str(folder),)
    cfg.DATASETS.TRAIN = (f"{folder.name}_{kind}s_train",)
    cfg.DATASETS.TEST = (f"{folder.name}_{kind}s_val",)
    cfg.merge_from_list(list(opts))
    return cfg
