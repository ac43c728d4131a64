"""Who does what in front of a camera, in a stream or on the screen, while it happens.

    alphaaction live 0 --video pieces
    alphaaction live rtsp://camera.local/stream --json actions.jsonl \\
        --config-file configs/AVA/aia_dense_R50_4x16.yaml --weights model.pth

SOURCE is the number of a camera, an address (rtsp, rtmp, http, udp ...), `screen`, a file (shown at
its own speed), or `lavfi:testsrc2` to try things out. Results are lines of JSON, one a keyframe, on
stdout or in a file; pieces of annotated video; a window. When the networks are slower than a
keyframe a second, whole keyframes are skipped and counted, and the results stay those of now.
A connection that is lost is tried again. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

import numpy as np

from ..data.video.live import LiveStream
from ..engine.inference import uses_memory
from ..engine.live import LivePredictor
from ..engine.predictor import class_names
from ..formats.results import KeyframeResult
from ..visualization.shown import MIN_SCORE, ShownClasses
from .command_line import tool_parser
from .console import setup_console
from .demo import load_predictor, used
from .live_video import AnnotatedStream, VideoPieces, Window
from .video_arguments import add_model_and_boxes, box_sources, model_cfg
from .video_results import keyframe_result

_TELL_EVERY = 30.0  # seconds


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help="camera, address, screen or file")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="append a line a keyframe; - is stdout, which is also the default without --video and "
        "--window",
    )
    parser.add_argument("--video", metavar="DIR", help="folder for pieces of annotated video (mp4)")
    parser.add_argument(
        "--piece", type=float, default=60.0, metavar="SECONDS", help="length of a piece (60)"
    )
    parser.add_argument("--window", action="store_true", help="show it; q ends it")
    parser.add_argument(
        "--min-score", type=float, default=MIN_SCORE, help=f"lowest that is told ({MIN_SCORE})"
    )
    parser.add_argument("--seconds", type=float, help="end after so many; default: never")
    add_model_and_boxes(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    if args.piece < 1 or (args.seconds is not None and args.seconds <= 0):
        raise ValueError("--piece SECONDS must be 1 or more, --seconds above 0")
    if args.json is None and not args.video and not args.window:
        args.json = "-"
    # stdout is for the lines of results, if these go there.
    logger = setup_console(stream=sys.stderr if args.json == "-" else sys.stdout)
    stream = LiveStream(args.source)  # first: a mistyped address shall not wait for a model
    window = Window(stream.name) if args.window else None
    cfg = model_cfg(args)
    boxes = box_sources(args, cfg)(args.source)
    logger.info("%s", used(cfg, args.boxes))
    predictor = load_predictor(cfg, with_detector=not args.boxes, form=LivePredictor)
    names = class_names(predictor.cfg, predictor.model, args.label_map)
    shown = ShownClasses.of(names, args.min_score)
    logger.info("%s: every result as soon as it can be", stream.name)
    if uses_memory(predictor.model):
        logger.info("The memory holds what was, not what comes (MODEL.MEMORY.DELAY 0)")
    alarm = "" if predictor.cfg.MODEL.WEIGHTS else "RANDOM NETWORK"
    view = AnnotatedStream(alarm) if args.video or window else None
    begin, told = datetime.now().astimezone(), time.monotonic()
    with ExitStack() as stack:
        lines = stack.enter_context(_lines(args.json)) if args.json else None
        pieces = None
        if args.video:
            pieces = VideoPieces(Path(args.video), args.piece, begin)
            stack.callback(pieces.close)
        stack.callback(lambda: logger.info("%s", summary(predictor, stream)))
        stack.callback(stream.stop)
        try:
            frames: Iterator = iter(stream)
            frames = frames if view is None else view.watch(frames)
            for result in predictor(frames, boxes, video_id=stream.name):
                keyframe = shown.keyframe(keyframe_result(result, names))
                if lines is not None:
                    print(line_of(result, keyframe, begin), file=lines, flush=True)
                if view is not None and not _show(view, keyframe, pieces, window):
                    break
                if args.seconds is not None and keyframe.timestamp >= args.seconds:
                    break
                if time.monotonic() > told + _TELL_EVERY:
                    told = time.monotonic()
                    logger.info("%s", summary(predictor, stream))
            else:  # the stream has ended by itself
                if view is not None:
                    _show(view, None, pieces, window)
        except KeyboardInterrupt:
            logger.info("Ended by Ctrl-C")
        except BrokenPipeError:  # whoever read the lines has read enough
            # What is left in the buffer is flushed once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show(
    view: AnnotatedStream,
    keyframe: KeyframeResult | None,
    pieces: VideoPieces | None,
    window: Window | None,
) -> bool:
    """Write and show what has become known with a keyframe; whether to go on."""
    picture = None
    for number, picture in view.drawn_until(keyframe):
        if pieces is not None and pieces.write(number, picture):
            view.restart_colours()
    return window is None or picture is None or window.show(picture)


def _lines(path: str) -> AbstractContextManager[IO[str]]:
    return nullcontext(sys.stdout) if path == "-" else open(path, "a", encoding="utf-8")


def line_of(result: dict, keyframe: KeyframeResult, begin: datetime) -> str:
    """One keyframe as a line of JSON: the predictor's result, the same as persons with the actions
    that are shown, and the time of day of second 0."""
    moment = begin + timedelta(seconds=keyframe.timestamp)
    content = {
        "video_id": result["video_id"],
        "time": moment.isoformat(timespec="milliseconds"),
        "timestamp": keyframe.timestamp,
        "latency": round(result["latency"], 3),
        "width": result["width"],
        "height": result["height"],
        "persons": [
            {
                "person_id": person.person_id,
                "box": [round(float(x), 1) for x in person.box],
                "actions": [{"name": n, "score": round(x, 4)} for n, x in person.actions],
            }
            for person in keyframe.persons
        ],
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def summary(predictor: LivePredictor, stream: LiveStream) -> str:
    """How late the results are, and what is missing."""
    seen, skipped = predictor.keyframes, predictor.dropped
    parts = [f"{seen} keyframes"]
    if predictor.latencies:
        middle, slow = np.percentile(predictor.latencies, [50, 95])
        parts.append(f"latency p50 {middle:.2f} s, p95 {slow:.2f} s")
    parts.append(f"{skipped} of {seen + skipped} seconds skipped (networks busy)")
    if stream.lost_seconds:
        parts.append(f"{stream.lost_seconds:.0f} s without a connection")
    return ", ".join(parts)
