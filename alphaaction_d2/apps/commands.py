"""All commands in one table: `alphaaction COMMAND`, and `python -m alphaaction_d2 COMMAND`.

A command's module is imported when it is asked for, so that help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..version import __version__
from .command_line import run_module


class Command(NamedTuple):
    """A command, whose module in apps has `parse_args` and `main`."""

    help: str  # one line
    example: str
    module: str = ""  # where it is not called as the command
    needs_models: bool = True  # False for what runs without torch or detectron2


COMMANDS = {
    "demo": Command("find out who does what in any video, and draw it", "film.mp4"),
    "predict": Command(
        "the same for many videos, as tables: on one machine or many",
        "--input films --output results",
    ),
    "web": Command("the same in a browser: upload a film, wait, look", "--videos my_films"),
    "live": Command(
        "the same for a camera, a stream or the screen, while it happens",
        "0 --video pieces",
    ),
    "segments": Command(
        "find out what is done to what in a kitchen's film: verbs, nouns, actions over time",
        "--verbs v.yaml v.pth --nouns n.yaml n.pth --input film.mp4 --output out",
    ),
    "boxes": Command("find boxes of persons and objects with a detector", "--dataset my_data"),
    "check": Command(
        "read a data set: what is wrong, what is unusual, what training will see",
        "my_data --sheet my_data.png",
    ),
    "train": Command(
        "train a model, and evaluate it",
        "--config-file Small/aia.yaml DATASETS.FOLDERS \"('my_data',)\"",
    ),
    "evaluate": Command(
        "evaluate a model on a data set, or score files of results",
        "--config-file output/config.yaml MODEL.WEIGHTS output/model_final.pth",
        needs_models=False,  # scoring files does not
    ),
    "search": Command(
        "find people in many videos: who acts like somebody, or does something",
        "--index film_actions --like film.mp4@12.0#3",
        needs_models=False,
    ),
    "convert": Command(
        "convert published weights to a checkpoint of this project, or results to COCO",
        "SLOWFAST_32x2_R101_50_50.pkl model.pth",
    ),
    "export": Command(
        "write a model as ONNX graphs that run without torch",
        "AVA/aia_dense_R50_4x16 --weights model.pth --output model",
    ),
    "visualize": Command(
        "draw what a model looks at, or compare two evaluations class by class",
        "compare a/ava_results.json b/ava_results.json --output compare.png",
    ),
    "puppets": Command(
        "write the Puppets data set: small videos with tables, ready to train on",
        "--output datasets/puppets",
    ),
    "setup": Command(
        "install detectron2, which is not on PyPI, unless it is there",
        "",
        "install_detectron2",
        needs_models=False,
    ),
}


def overview() -> str:
    """The help of the command without a command."""
    lines = ["usage: alphaaction COMMAND [options]", "", "Who does what, when and where in videos."]
    for name, command in COMMANDS.items():
        example = f"alphaaction {name} {command.example}".strip()
        lines += ["", f"  {name:10} {command.help}", f"    $ {example}"]
    return "\n".join([*lines, "", "alphaaction COMMAND --help tells a command's options."])


def run(argv: Sequence[str]) -> int:
    """Run a command, its name before its arguments; returns its exit code, 2 where there is no such
    one."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"alphaaction_d2 {__version__}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        sys.stderr.write(f"error: no command {name!r}: one of {', '.join(COMMANDS)}\n")
        return 2
    sys.argv = [f"alphaaction {name}", *rest]  # what usage lines, and processes of a group, tell
    return run_module(command.module or name, rest, command.needs_models)
