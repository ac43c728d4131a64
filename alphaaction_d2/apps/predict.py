"""Who does what in many videos: tables, a folder for each video; no pictures (those: demo).

    alphaaction predict --input films --output results
    alphaaction predict --input 'films/*/*.mp4' --output results --shard 0/8
    alphaaction predict --input list.txt --output results --ray 8

Killed or interrupted, the same command goes on: what is finished is passed over, what failed is
tried again. Any number of processes may write into one output, with a shard each (the default is
what torchrun says) or not. docs/many_videos.md tells more.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import math
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from ..config import check_keys, whole
from ..data.video import VideoInfo, one_line, probe_video, video_name
from ..engine import VideoPredictor
from ..engine.box_sources import BoxSource
from ..engine.predictor import class_names
from ..formats.results import KeyframeResult, VideoResult
from .command_line import USER_ERRORS, describe_error, tool_parser
from .console import setup_console
from .demo import load_predictor, used
from .progress import EVERY_SECONDS, videos_text
from .video_arguments import WHOLE_FRAME, add_model_and_boxes, box_sources, find_inputs, model_cfg
from .video_folders import FAILED, VideoFolders, claim_folder, shard_of
from .video_results import keyframe_result, tell_of_boxes, write_tables

logger = logging.getLogger(__name__)

GPU_VIDEOS = 8  # at a time on a GPU, unless TEST.IMS_PER_BATCH is given
# Sections that results depend on, and keys of them that change nothing (weights are compared by
# what is in them).
_SECTIONS = ("MODEL", "INPUT", "TEST", "TRACKER_HEADS")
_WITHOUT_EFFECT = ("MODEL.DEVICE", "MODEL.WEIGHTS", "TEST.IMS_PER_BATCH")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="VIDEO",
        help="videos, folders of them, 'patterns' in quotes, .txt files with a path in each line",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--shard",
        default="{}/{}".format(os.environ.get("RANK", 0), os.environ.get("WORLD_SIZE", 1)),
        metavar="I/N",
        help="do the I-th of N parts of the videos, from 0 on",
    )
    parser.add_argument(
        "--ray", type=int, default=0, metavar="N", help="N workers of Ray, on RAY_ADDRESS or here"
    )
    add_model_and_boxes(parser)
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Outcome:
    """What became of a video."""

    video: str
    what: str  # "done", "failed", or "passed over": it was finished, or another process has it;
    # "refused" by a worker of Ray that could not be set up
    reason: str = ""
    seconds: float = 0.0  # of the video


@dataclass(eq=False)
class _Work:
    """A video that is being predicted."""

    video: str
    folder: Path
    info: VideoInfo
    boxes: BoxSource
    keyframes: list[KeyframeResult] = field(default_factory=list)


class Predict:
    """A process that has loaded its model once, and predicts videos."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Load the model; ValueError where the output was begun with other settings."""
        cfg = model_cfg(args)
        if cfg.MODEL.DEVICE == "cuda" and "LOCAL_RANK" in os.environ:  # of torchrun
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        self._boxes_of = box_sources(args, cfg)
        logger.info("%s", used(cfg, args.boxes))
        if args.random:
            seed_all_rng(0)  # all processes have the same network
        self._predictor = load_predictor(cfg, with_detector=not args.boxes, form=VideoPredictor)
        self._names = class_names(cfg, self._predictor.model, args.label_map)
        self._number = videos_at_a_time(cfg, args)
        self._folders = VideoFolders(args.output)
        settings = {
            "weights": self._predictor.checksum,
            "classes": self._names,
            "boxes": args.boxes and [_content(x) for x in args.boxes],
            **_settings(cfg),
        }
        claim_folder(self._folders.output, settings)

    def run(self, videos: Iterable[str]) -> Generator[Outcome, None, None]:
        """Predict videos that nobody has finished or works on, in order, a few at a time; last and
        alone those over which a process may have died, since not all of them are to blame."""
        if self._number == 1:
            yield from self._run(videos, 1)
            return
        groups: dict[bool, list[str]] = {False: [], True: []}
        for video in videos:
            groups[self._folders.was_begun(video_name(video))].append(video)
        yield from self._run(groups[False], self._number)
        yield from self._run(groups[True], 1)

    def _run(self, videos: Iterable[str], number: int) -> Generator[Outcome, None, None]:
        told: deque[Outcome] = deque()  # without having been to the networks
        at_work: list[_Work] = []

        def begun() -> Iterator[tuple[_Work, str, BoxSource]]:
            for video in videos:
                try:
                    work = self._begin(video)
                except Exception as error:
                    told.append(self._fail(video, error))
                    continue
                if work is None:
                    told.append(Outcome(video, "passed over"))
                else:
                    at_work.append(work)
                    yield work, video, work.boxes

        try:
            for work, x in self._predictor.several(begun(), number):
                if isinstance(x, dict):
                    work.keyframes.append(keyframe_result(x, self._names))
                    continue
                at_work.remove(work)
                told.append(self._end(work) if x is None else self._fail(work.video, x))
                self._folders.leave(video_name(work.video))
                while told:
                    yield told.popleft()
            yield from told
        except (KeyboardInterrupt, GeneratorExit):
            for work in at_work:
                self._folders.leave(video_name(work.video))
            raise

    def _begin(self, video: str) -> _Work | None:
        folder = self._folders.begin(video_name(video))
        if folder is None:
            return None
        try:
            info, boxes = probe_video(video), self._boxes_of(video)
        except BaseException:
            self._folders.leave(video_name(video))
            raise
        boxes = self._predictor.default_boxes() if boxes is None else boxes
        return _Work(video, folder, info, boxes)

    def _end(self, work: _Work) -> Outcome:
        tell_of_boxes(work.info, work.boxes, self._predictor)
        name, size = video_name(work.video), (work.info.width, work.info.height)
        result = VideoResult(name, *size, self._names, work.keyframes)
        try:
            write_tables(work.folder, result, work.info.path, self._predictor.checksum)
        except ValueError as error:  # scores that are no numbers; a full disk ends the process
            return self._fail(work.video, error)
        self._folders.finish(name)
        length = work.info.duration or float(len(work.keyframes))
        return Outcome(work.video, "done", seconds=length)

    def _fail(self, video: str, error: Exception) -> Outcome:
        reason = describe_error(error)
        if not isinstance(error, USER_ERRORS):
            reason = f"{type(error).__name__}: {reason}"
            logger.error("%s: %s", video, reason, exc_info=error)
        self._folders.fail(video_name(video), video, one_line(reason))
        return Outcome(video, "failed", one_line(reason))


def videos_at_a_time(cfg: CfgNode, args: argparse.Namespace, has_gpu: bool | None = None) -> int:
    """How many videos go through the networks together."""
    has_gpu = cfg.MODEL.DEVICE != "cpu" if has_gpu is None else has_gpu
    check_keys(cfg, "TEST", {"IMS_PER_BATCH": whole(1, 100_000)})
    is_given = "TEST.IMS_PER_BATCH" in args.opts or not has_gpu
    return cfg.TEST.IMS_PER_BATCH if is_given else GPU_VIDEOS


def _content(boxes: str) -> str:
    if boxes == WHOLE_FRAME:
        return boxes
    return hashlib.sha256(Path(boxes).read_bytes()).hexdigest()


def _settings(node: CfgNode, prefix: str = "") -> dict[str, object]:
    """List the keys that results depend on."""
    found: dict[str, object] = {}
    for key, value in node.items():
        if not prefix and key not in _SECTIONS:
            continue
        if isinstance(value, CfgNode):
            found |= _settings(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" not in _WITHOUT_EFFECT:
            found[f"{prefix}{key}"] = value
    return found


class _Worker:
    """A :class:`Predict` as Ray Data starts it: on any machine, and anew when it was killed."""

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        os.chdir(folder)  # where the paths of `args` begin
        self._predict: Predict | None = None
        try:
            self._predict = Predict(args)
        except USER_ERRORS as error:  # Ray would try again, and bury the line
            self._error = describe_error(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Predict a batch; a row for each video says what became of it."""
        videos = list(map(str, batch["video"]))
        if self._predict is None:
            outcomes = [Outcome(x, "refused", self._error) for x in videos]
        else:
            outcomes = list(self._predict.run(videos))
        rows = list(map(asdict, outcomes))
        return {key: [row[key] for row in rows] for key in rows[0]}


def on_ray(args: argparse.Namespace, videos: list[str]) -> Generator[Outcome, None, None]:
    """Predict on workers of Ray, which replaces those that die and gives their videos to others."""
    try:
        import ray.data
    except ImportError as error:
        raise ValueError("--ray: Ray is missing: pip install 'alphaaction_d2[cluster]'") from error
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it tells of its own affairs
    ray.init(log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    ray.data.DataContext.get_current().enable_progress_bars = False
    number = videos_at_a_time(model_cfg(args), args, gpus > 0)
    batch = 4 * number if number > 1 else 1  # the last videos of a batch leave a GPU idle
    items = ray.data.from_items(
        [{"video": x} for x in videos], override_num_blocks=math.ceil(len(videos) / batch)
    )
    outcomes = items.map_batches(
        _Worker,
        fn_constructor_args=(args, os.getcwd()),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=args.ray),
        num_gpus=1 / math.ceil(args.ray / gpus) if gpus else 0,
    )
    for row in outcomes.iter_rows():
        outcome = Outcome(**row)
        if outcome.what == "refused":
            raise ValueError(outcome.reason)
        yield outcome


def my_part(videos: list[str], shard: str) -> list[str]:
    """The videos of a shard I/N."""
    part, _, number = shard.partition("/")
    if not (part.isdecimal() and number.isdecimal() and int(part) < int(number)):
        raise ValueError(f"--shard {shard}: give I/N, I from 0 to N - 1, as 0/8 ... 7/8")
    return [x for x in videos if shard_of(video_name(x), int(number)) == int(part)]


def main(args: argparse.Namespace) -> int:
    setup_console()
    # SLURM's way to take the machine: a film that was at work has not failed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    videos = [str(x) for x in find_inputs(args.input)]
    mine, folders = my_part(videos, args.shard), VideoFolders(args.output)
    left = sum(not folders.is_finished(video_name(x)) for x in mine)
    logger.info("%d videos; %d of %d in this part to do", len(videos), left, len(mine))
    begun, told, seconds, counts = time.monotonic(), 0.0, 0.0, Counter[str]()
    runs = on_ray(args, mine) if args.ray and mine else Predict(args).run(mine)
    with contextlib.closing(runs):
        for outcome in runs:
            counts[outcome.what] += 1
            seconds += outcome.seconds
            if outcome.what == "failed":
                name = one_line(outcome.video)
                reason = outcome.reason if name in outcome.reason else f"{name}: {outcome.reason}"
                logger.error("%s", reason)
            spent = time.monotonic() - begun
            if spent >= told + EVERY_SECONDS:
                told, done = spent, counts["done"] + counts["failed"]
                logger.info("%s", videos_text(done, max(left, done), seconds, spent))
    names = list(map(video_name, videos))
    elsewhere = [x for x in names if not (folders.is_finished(x) or folders.has_failed(x))]
    logger.info("Tables: %s", folders.write_tables())  # of what is there; the last one has all
    logger.info(
        "%d videos done, %d failed%s, %d passed over%s",
        counts["done"],
        counts["failed"],
        f" ({folders.output / FAILED})" * bool(folders.failed()),
        counts["passed over"],
        f"; {len(elsewhere)} are other processes' to do" * bool(elsewhere),
    )
    # torchrun ends all processes when one ends with an error, which a film's is not
    return 1 if counts["failed"] and "TORCHELASTIC_RUN_ID" not in os.environ else 0
