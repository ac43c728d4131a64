"""The whole path on a fresh machine: generate videos, train, evaluate, and show the result.

Everything ends in one folder: sample.png, a look at the data, report.html with an annotated video,
a chart of the average precision of every class, and the results as CSV and JSON. Run it again and
finished parts are reused. Training begins from the backbone beside the configurations of Puppets,
as real training begins from a backbone that was trained on Kinetics; --from-nothing trains it, too.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from detectron2.data import DatasetCatalog

from ..data.datasets import datasets_root, register_datasets
from ..data.datasets.puppets.generate import generate_puppets
from ..engine import AttentionPredictor
from ..engine.box_sources import KeyframeBoxes
from ..engine.predictor import class_names
from ..engine.stopwatch import TimeLeft
from ..formats.results import read_evaluation
from ..visualization import write_report
from ..visualization.charts import class_ap_chart
from .check import draw_data_set
from .command_line import tool_parser, typed_command
from .console import setup_console
from .experiment import PUPPETS_CONFIGS, experiment_cfg, run_experiment
from .video_results import process_video, truth_of

# Seconds of what is done, in order, as measured on two quiet cores.
STAGES = {
    "videos": 20,
    "backbone": 331,
    "features": 55,
    "training": 230,
    "evaluation": 21,
    "drawing": 6,
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--output", default="demo_output", help="folder of all that is made")
    parser.add_argument("--config-file", default=str(PUPPETS_CONFIGS / "igmn.yaml"))
    parser.add_argument("--from-nothing", action="store_true", help="train the backbone, too")
    parser.add_argument("--num-videos", type=int, default=2, help="validation videos to annotate")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the configuration"
    )
    return parser.parse_args(argv)


def draw_sample(output: Path) -> Path:
    """Draw keyframes of a few videos with their labels: something to look at within seconds."""
    path = output / "sample.png"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            few = generate_puppets(Path(folder) / "puppets", num_train=3, num_val=1)
            draw_data_set(few, path, 16)
    return path


class Whole(logging.Filter):
    """Adds to what messages say is left of a stage what the stages after it take.

    Attributes:
        seconds: of the stages so far.
    """

    def __init__(self, stages: list[str]) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._later, self._stage, self._since = stages, "", time.monotonic()

    def begin(self, stage: str = "") -> TimeLeft:
        """Begin a stage, or end the last one; give what it takes."""
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = now - self._since
        self._stage, self._since = stage, now
        self._later = self._later[self._later.index(stage) + 1 :] if stage else []
        return TimeLeft(STAGES.get(stage, 0))

    def filter(self, record: logging.LogRecord) -> bool:
        if self._stage == "features" and record.name.endswith("hooks"):  # they tell of steps
            self.begin("training")
        more = sum(STAGES[x] for x in self._later)
        if isinstance(record.args, tuple):  # becomes a text, as other handlers ask here, too
            record.args = tuple(
                str(TimeLeft(x + more)) if isinstance(x, TimeLeft) else x for x in record.args
            )
        return True


def main(args: argparse.Namespace) -> int:
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    logger = setup_console(output)
    whole = Whole([x for x in STAGES if x != "backbone" or args.from_nothing])
    for handler in logger.handlers:
        handler.addFilter(whole)

    logger.info("1/4 Generating the Puppets data set, %s", whole.begin("videos"))
    sample = draw_sample(output)
    logger.info("A look at it: %s", sample)
    puppets = generate_puppets(datasets_root() / "puppets")
    cfg = experiment_cfg(args.config_file, args.opts, puppets, output / "training")

    cfg.MODEL.WEIGHTS = str(PUPPETS_CONFIGS / "backbone.pth")
    if args.from_nothing:
        logger.info("2/4 Training the backbone, %s", whole.begin("backbone"))
        none = PUPPETS_CONFIGS / "none.yaml"
        backbone = experiment_cfg(none, args.opts, puppets, output / "backbone")
        backbone.DATASETS.TEST = ()
        run_experiment(backbone)
        cfg.MODEL.WEIGHTS = str(Path(backbone.OUTPUT_DIR) / "model_final.pth")
    logger.info("2/4 Training %s, %s", Path(args.config_file).name, whole.begin("features"))
    results = run_experiment(cfg)

    logger.info("3/4 Annotating videos, %s", whole.begin("drawing"))
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    register_datasets(cfg)
    predictor = AttentionPredictor(cfg)
    names = class_names(cfg, predictor.model)
    files = [puppets / "boxes" / f"val_{kind}.csv" for kind in ("persons", "objects")]
    sections, keyframes = [], DatasetCatalog.get(cfg.DATASETS.TEST[0])
    for video in sorted((puppets / "videos").glob("val_*.mp4"))[: args.num_videos]:
        boxes = KeyframeBoxes.from_files(files, video.stem)
        truth = truth_of(keyframes, video.stem, names)
        folder = output / video.stem
        sections.append(process_video(predictor, video, boxes, folder, names, truth=truth))

    logger.info("4/4 Writing the report")
    classes, protocol = read_evaluation(results)
    chart = class_ap_chart(output / "class_ap.png", classes, protocol=protocol)
    report = write_report(
        output,
        title="Who does what in Puppets",
        subtitle=f"{Path(args.config_file).stem}, {cfg.SOLVER.MAX_ITER} training steps",
        videos=sections,
        classes=classes,
        protocol=protocol,
        charts={"Average precision per class": chart},
        command=typed_command(),
        config=cfg.dump(),
        downloads=[results, results.with_name("ava_detections.csv")],
    )
    whole.begin()
    stages = ", ".join(f"{name} {taken:.0f} s" for name, taken in whole.seconds.items())
    minutes = sum(whole.seconds.values()) / 60
    logger.info("Done in %.1f minutes (%s): %s", minutes, stages, report)
    return 0
