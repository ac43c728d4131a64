"""Configuration keys: every one is explained, read where something is built, and checked there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.modeling import build_model

from alphaaction_d2 import register_datasets
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.datasets import check_data_sets
from alphaaction_d2.data.train_loader import repeats_from_config
from alphaaction_d2.engine.checks import check_run_keys
from alphaaction_d2.engine.inference import build_delayed_inference
from alphaaction_d2.memory.pool import MemoryPool
from alphaaction_d2.tracking.tracker import PersonTracker
from tests.helpers import small_cfg

PACKAGE = Path(__file__).resolve().parents[1] / "alphaaction_d2"
CONFIG = PACKAGE / "config.py"


def unexplained_keys(source: str) -> list[str]:
    """Keys without a comment on their line, above it, or above the keys right before them."""
    lines = source.splitlines()
    found = []
    functions = [x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef)]
    for node in ast.walk(ast.Module([x for x in functions if "add" in x.name], [])):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        key = ast.unparse(node.targets[0])
        if not key.startswith("cfg.") or ast.unparse(node.value) == "CN()":
            continue
        above = node.lineno - 2
        while lines[above].strip().startswith("cfg."):
            above -= 1
        commented = lines[above].strip().startswith("#") or "  # " in lines[node.lineno - 1]
        if not commented:
            found.append(key)
    return found


def test_every_key_is_explained():
    assert unexplained_keys(CONFIG.read_text(encoding="utf-8")) == []


def test_a_key_without_a_comment_is_found():
    source = "def add(cfg):\n    cfg.A.B = 1\n    # what C is\n    cfg.A.C = 2\n    cfg.A.D = 3\n"
    assert unexplained_keys(source) == ["cfg.A.B"]


# What reads keys although it is no `from_config`, `__init__` or `build_*`: all of it prepares a
# run, or reads or makes a configuration.
READERS = {
    *("config.py", "apps", "model_zoo"),  # everything in there
    "formats/config_files.py setup_cfg",
    "data/datasets/builtin.py register_datasets",
    "data/datasets/builtin.py check_data_sets",
    "data/train_loader.py repeats_from_config",
    "structures.py of",
    "modeling/backbone/slowfast.py _from_config",
    "modeling/interaction/build.py common_options",
    "modeling/interaction/build.py memory_channels",
    "modeling/detector.py configured_detector",
    "engine/checks.py check_run_keys",
    "engine/solver.py parameter_groups",
    "engine/solver.py scale_to_batch",
    "engine/memory_fill.py attach_memory",
    "engine/memory_fill.py frozen_origin",
    "engine/inference.py frozen_cfg",
    "engine/export.py describe",
    "engine/export.py check_exportable",
    "engine/exported.py exported_cfg",
    "engine/feature_files.py _settings",
    "engine/feature_files.py network_checksum",
    "engine/feature_files.py of",
    "memory/pool.py has_frozen_memory",
    "tracking/tracker.py tracking_options",
    "modeling/backbone/joined.py _load",
    "modeling/backbone/joined.py _moments",
    "engine/predictor.py class_names",
    "engine/trainer.py _ava_evaluator",
    "engine/trainer.py _ucf101_24_evaluator",
    "engine/trainer.py check_classes",
    "engine/trainer.py compare_class_names",
    "engine/trainer.py keep_class_names",
    "engine/trainer.py resume_or_load",
    "engine/trainer.py before_train",
    "engine/trainer.py _provide_frozen_memory",
}


def readers(source: str) -> Iterator[str]:
    """The functions that read a key of `cfg`, whatever holds it; "" outside of functions."""

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Attribute) and child.attr.isupper():
                holder = ast.unparse(child.value).rpartition(".")[2]
                if holder.endswith("cfg"):
                    yield inside
            yield from visit(child, inside)

    return visit(ast.parse(source), "")


def test_keys_are_read_where_something_is_built():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not READERS & {name, name.partition("/")[0]}:
            found |= {
                f"{name} {function}"
                for function in readers(path.read_text(encoding="utf-8"))
                if function not in ("from_config", "__init__")
                and not function.startswith(("build_", "_build"))
            }
    assert found <= READERS, "reads keys: do it in the constructor"


def test_a_reader_is_found():
    source = (
        "class A:\n    def __call__(self):\n        return self._cfg.MODEL.X, self.cfg.clone()\n"
    )
    assert list(readers(source)) == ["__call__"]


def build_what_reads(cfg, section: str) -> None:
    """Build what the keys of a section are for."""
    if section == "INPUT":
        ActionDatasetMapper(cfg, is_train=True)
        ActionDatasetMapper(cfg, is_train=False)
    elif section == "DATALOADER":
        check_run_keys(cfg)
        repeats_from_config(cfg, [], 0)
    elif section == "DATASETS":
        check_run_keys(cfg)
        register_datasets(cfg)
        check_data_sets(cfg)
    elif section == "TRACKER_HEADS":
        PersonTracker(cfg)
    elif section == "MODEL":
        model = build_model(cfg)
        MemoryPool(cfg, 1)
        build_delayed_inference(cfg, model)
    else:
        check_run_keys(cfg)


NAN, HUGE = float("nan"), 10**12
ODD_VALUES = [
    ("SEED", -2, "from -1"),
    ("OUTPUT_DIR", "", "a text"),
    *(("SOLVER.IMS_PER_BATCH", value, "from 1 to") for value in (0, -2, HUGE)),
    ("SOLVER.CHECKPOINT_PERIOD", 0, "from 1 to"),
    ("SOLVER.MAX_ITER", 0, "from 1 to"),
    ("SOLVER.STEPS", (5, 3), "in ascending order"),
    ("SOLVER.STEPS", ("a",), "in ascending order"),
    ("SOLVER.BASE_LR", NAN, "a number"),
    ("SOLVER.GAMMA", -1.0, "a number"),
    ("SOLVER.WARMUP_METHOD", "magic", "'constant', 'linear'"),
    ("SOLVER.LR_SCHEDULER_NAME", "magic", "WarmupCosineLR"),
    ("SOLVER.OPTIMIZER", "Adam", "'AdamW', 'SGD'"),
    ("SOLVER.WEIGHT_DECAY_BIAS", NAN, "a number"),
    ("SOLVER.REFERENCE_WORLD_SIZE", 3, "a divisor"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "magic", "'full_model', 'norm', 'value'"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0, "above 0"),
    ("TEST.EVAL_PERIOD", -1, "from 0"),
    ("TEST.PRECISE_BN.NUM_ITER", 0, "from 1"),
    ("TEST.EXPECTED_RESULTS", ["ava"], "task, metric, value, tolerance"),
    ("TEST.AVA_PROTOCOL", "", "'official2018'"),
    ("DATALOADER.NUM_WORKERS", -1, "from 0"),
    ("DATALOADER.SAMPLER_TRAIN", "", "TrainingSampler"),
    ("DATALOADER.REPEAT_THRESHOLD", 1e30, "from 0 to 1"),
    ("DATALOADER.STORED_VARIANTS", -1, "from 0"),
    ("DATASETS.FOLDERS", (5,), "a text"),
    ("DATASETS.FOLDERS", ("nowhere",), "there is no such folder"),
    ("DATASETS.FOLDERS", ("",), "a text"),
    ("DATASETS.TRAIN", ("nowhere_train",), "'nowhere_train' is not registered"),
    ("DATASETS.TEST", ("nowhere_val",), "'nowhere_val' is not registered"),
    ("INPUT.NUM_FRAMES", 0, "from 1"),
    ("INPUT.CLIP_FPS", NAN, "above 0"),
    ("INPUT.MIN_SIZE_TRAIN", (-1,), "from 0"),
    ("INPUT.MIN_SIZE_TRAIN", (), "1 or more times"),
    ("INPUT.MIN_SIZE_TEST", HUGE, "from 0 to 16384"),
    ("INPUT.COLOR_JITTER", (1, 2), "3 times"),
    ("INPUT.BOX_JITTER", (0.1, 0.1, 0.1), "4 times"),
    ("INPUT.MAX_BOX_SCALE_TRAIN", NAN, "from 1"),
    ("INPUT.RANDOM_FLIP", "vertical", "'horizontal', 'none'"),
    ("INPUT.PERSON_SCORE_THRESH_TEST", NAN, "from 0 to 1"),
    ("INPUT.MAX_OBJECTS", -1, "from 0"),
    ("MODEL.META_ARCHITECTURE", "Nobody", "'ActionRCNN'"),
    ("MODEL.BACKBONE.NAME", "", "'build_slowfast_backbone'"),
    ("MODEL.ROI_HEADS.NAME", "Nobody", "'ActionROIHeads'"),
    ("MODEL.PIXEL_MEAN", [1.0, 2.0], "3 times"),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "above 0"),
    ("MODEL.SLOWFAST.DEPTH", 1, "is not one of [18, 50, 101, 152]"),
    ("MODEL.SLOWFAST.ALPHA", 0, "from 1"),
    ("MODEL.SLOWFAST.STEM_KERNELS", ((1, 7, 7),), "2 times 3 times an odd"),
    ("MODEL.SLOWFAST.TEMPORAL_BLOCKS", (1,), "0 or 4 times"),
    ("MODEL.SLOWFAST.LATERAL_KERNEL", 4, "an odd"),
    ("MODEL.ROI_ACTION_HEAD.NUM_FC", -1, "from 0"),
    ("MODEL.ROI_ACTION_HEAD.FC_DIM", HUGE, "from 1 to 16384"),
    ("MODEL.ROI_ACTION_HEAD.POOLER_RESOLUTION", 0, "from 1"),
    ("MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST", (0.1,), "2 times"),
    ("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", ("pose", "pose"), "different names"),
    ("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", (3, 0), "from 1"),
    ("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", ("a", "b"), "from 1"),
    ("MODEL.ROI_ACTION_HEAD.DROPOUT", 1.5, "from 0 to 1"),
    ("MODEL.ROI_ACTION_HEAD.LOSS", "hinge", "'bce', 'focal'"),
    ("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", (1.0, 1e30), "from 0 to 1e+06"),
    ("MODEL.DAM.LOSS_WEIGHT", 1e30, "from 0 to 1e+06"),
    ("MODEL.INTERACTION.NAME", "Nobody", "known: "),
    ("MODEL.INTERACTION.DIM", 0, "from 1"),
    ("MODEL.INTERACTION.BLOCKS", ("P", "X"), "'M', 'O', 'P'"),
    ("MODEL.INTERACTION.INIT_STD", -1.0, "from 0"),
    ("MODEL.MEMORY.WINDOW", (7,), "2 times a whole number"),
    ("MODEL.MEMORY.WINDOW", (1.5, 2), "2 times a whole number"),
    ("MODEL.MEMORY.STRIDE", 0, "from 1"),
    ("MODEL.MEMORY.SLOTS_PER_SECOND", NAN, "above 0"),
    ("MODEL.MEMORY.FROZEN_WEIGHTS", "nonsense", "no such weights"),
    ("MODEL.MEMORY.DELAY", -7, "from -1"),
    ("TRACKER_HEADS.MAX_GAP", NAN, "from 0"),
    ("TRACKER_HEADS.MIN_COSINE", 2.0, "from -1 to 1"),
]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    ODD_VALUES,
    ids=[f"{key}={value!r}" for key, value, _ in ODD_VALUES],
)
def test_an_odd_value_is_refused_in_one_line(key, value, expected):
    others = {
        "MODEL.DAM.LOSS_WEIGHT": ("MODEL.INTERACTION.NAME", "IGMN"),
        "DATASETS.TEST": ("DATASETS.TRAIN", ("ava_v2.2_train",)),
    }
    cfg = small_cfg(None, key, value, *others.get(key, ()))
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=key) as error:
        if key == "MODEL.META_ARCHITECTURE":
            check_run_keys(cfg)
        build_what_reads(cfg, key.partition(".")[0])
    message = str(error.value.args[0])
    assert expected in message and "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "because_of"),
    [
        ("SOLVER.STEPS", (1, 2), ("SOLVER.MAX_ITER", 2)),
        ("SOLVER.WARMUP_ITERS", 9, ("SOLVER.MAX_ITER", 9, "SOLVER.RESCALE_INTERVAL", True)),
        ("SOLVER.BASE_LR_END", 1.0, ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")),
        ("SOLVER.NESTEROV", True, ("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0)),
    ],
)
def test_values_that_do_not_go_together_are_refused(key, value, because_of):
    cfg = small_cfg(None, key, value, *because_of)
    with pytest.raises(ValueError, match=f"^{key} "):
        check_run_keys(cfg)
