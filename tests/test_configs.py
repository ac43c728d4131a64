"""Every configuration file builds what it describes, with the numbers that the papers give."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from alphaaction_d2 import setup_cfg
from alphaaction_d2.config import class_groups
from alphaaction_d2.engine.solver import build_optimizer
from tests.projects.tables import PROJECTS, documented_commands, table_rows

ROOT = Path(__file__).resolve().parents[1]
AVA = ROOT / "configs" / "AVA"

FILES = sorted(ROOT.glob("configs/**/*.yaml")) + sorted(ROOT.glob("projects/*/configs/*.yaml"))
CONFIGS = [path for path in FILES if not path.name.startswith("Base")]
MODELS = (
    "slowfast_R50_4x16",
    "nl_R50_4x16",
    "lfb_R50_4x16",
    "lfb_amu_R50_4x16",
    "aia_parallel_R50_4x16",
    "aia_serial_R50_4x16",
    "aia_dense_R50_4x16",
    "slowfast_R101_8x8",
    "aia_dense_R101_8x8",
)
FOLDERS = {"": "paper", "released": "released"}  # folder below configs/AVA -> recipe
AVA_CONFIGS = [(folder, model) for folder in FOLDERS for model in MODELS]

# Row of AIA's Table 1 -> structure and blocks; "frozen": memory that is not updated (w/o AMU).
SERIAL, PARALLEL, DENSE = "SerialInteraction", "ParallelInteraction", "DenseSerialInteraction"
NONE, DEFAULT = ("", ""), "POMPOM"
TABLE_1 = {
    "1a_none": NONE,
    "1a_PO": (SERIAL, "PO"),
    "1a_PM": (SERIAL, "PM"),
    "1a_OM": (SERIAL, "OM"),
    "1a_POM": (SERIAL, "POM"),
    "1b_1x": (SERIAL, "POM"),
    "1b_2x": (SERIAL, DEFAULT),
    "1b_3x": (SERIAL, "POMPOMPOM"),
    "1c_MOP": (SERIAL, "MOPMOP"),
    "1c_MPO": (SERIAL, "MPOMPO"),
    "1c_OPM": (SERIAL, "OPMOPM"),
    "1c_OMP": (SERIAL, "OMPOMP"),
    "1c_PMO": (SERIAL, "PMOPMO"),
    "1c_POM": (SERIAL, DEFAULT),
    "1d_parallel": (PARALLEL, DEFAULT),
    "1d_serial": (SERIAL, DEFAULT),
    "1d_dense": (DENSE, DEFAULT),
    "1e_none": NONE,
    "1e_lfb_without_amu": (SERIAL, "MM", "frozen"),
    "1e_lfb_with_amu": (SERIAL, "MM"),
    "1e_ia_without_amu": (SERIAL, DEFAULT, "frozen"),
    "1e_ia_with_amu": (SERIAL, DEFAULT),
    "1f_none": NONE,
    "1f_nl": ("NonLocalInteraction", ""),
    "1f_ia_without_memory": (SERIAL, "POPO"),
}

PAPER = {  # AIA, Sec. 4.1; weight decay, momentum and the start of the warm-up as released
    "SOLVER.OPTIMIZER": "SGD",
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 64,
    "SOLVER.BASE_LR": 0.004,
    "SOLVER.STEPS": (17500, 22500),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MAX_ITER": 27500,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.WARMUP_ITERS": 2000,
    "SOLVER.WARMUP_FACTOR": 0.25,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.INTERACTION_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY": 1e-7,
    "MODEL.SLOWFAST.SLOW_JITTER": False,
    "MODEL.ROI_ACTION_HEAD.POOL_TO_LAST_PIXEL": False,
    "MODEL.ROI_ACTION_HEAD.LOSS": "bce",
    "MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS": None,  # 1 each
    "MODEL.INTERACTION.ATTEND_PADDING": False,
    "INPUT.COLOR_JITTER": (0, 0, 0),
    "INPUT.MAX_SIZE_TRAIN": 10000,  # nothing is capped
    "INPUT.MAX_SIZE_TEST": 10000,
    "TEST.AUG.MAX_SIZE": 4000,
}
RELEASED = {  # the authors' released configuration (R50, dense serial)
    **PAPER,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.0004,
    "SOLVER.STEPS": (70000, 90000),
    "SOLVER.MAX_ITER": 110000,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.INTERACTION_LR_FACTOR": 10.0,
    "SOLVER.WEIGHT_DECAY": 1e-7,
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
    "SOLVER.CHECKPOINT_PERIOD": 10000,
    "TEST.EVAL_PERIOD": 10000,
    "MODEL.SLOWFAST.SLOW_JITTER": True,
    "MODEL.ROI_ACTION_HEAD.DROPOUT": 0.2,
    "MODEL.ROI_ACTION_HEAD.POOL_TO_LAST_PIXEL": True,
    "MODEL.ROI_ACTION_HEAD.LOSS": "focal",
    "MODEL.ROI_ACTION_HEAD.FOCAL_GAMMA": 2.0,
    "MODEL.ROI_ACTION_HEAD.FOCAL_ALPHA": -1.0,
    "MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS": (1.2, 1.0, 1.0),
    "MODEL.INTERACTION.DROPOUT": 0.2,
    "MODEL.INTERACTION.ATTEND_PADDING": True,
    "INPUT.COLOR_JITTER": (10, 26, 26),
    "INPUT.MAX_SIZE_TRAIN": 464,
    "INPUT.MAX_SIZE_TEST": 464,
    "TEST.AUG.MAX_SIZE": 464,
}
RECIPES = {"paper": PAPER, "released": RELEASED}
BOTH = {  # Sec. 4.1 and the released configurations
    "MODEL.SLOWFAST.NORM": "FrozenBN",
    "MODEL.MEMORY.WINDOW": (30, 30),
    "MODEL.MEMORY.MAX_PERSONS": 5,
    "MODEL.INTERACTION.DIM": 1024,
    "MODEL.INTERACTION.FUSION": "add",
    "INPUT.NUM_FRAMES": 64,
    "INPUT.MIN_SIZE_TRAIN": (256,),
    "INPUT.MIN_SIZE_TEST": 256,
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.BOX_JITTER": (0.2, 0.1, 0.1, 0.05),
    "INPUT.PERSON_SCORE_THRESH_TEST": 0.8,
    "INPUT.OBJECT_SCORE_THRESH": 0.5,
    "INPUT.MAX_OBJECTS": 5,
    "MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST": (0.1, 0.05),
}


@functools.cache
def load(path: Path) -> CfgNode:
    without_download = ("MODEL.VIDEO_BACKBONE.WEIGHTS", "")
    return setup_cfg(str(path), ["MODEL.DEVICE", "meta", *without_download])


_MODELS: dict[str, torch.nn.Module] = {}


def build(cfg: CfgNode) -> torch.nn.Module:
    """The model, shapes only: no time and memory for weights. Equal networks are built once."""
    key = f"{cfg.MODEL} {cfg.INPUT.NUM_FRAMES}"
    if key not in _MODELS:
        with torch.device("meta"):
            _MODELS[key] = build_model(cfg)
    return _MODELS[key]


def values(cfg: CfgNode, facts: dict) -> dict:
    return {key: functools.reduce(getattr, key.split("."), cfg) for key in facts}


def row_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CONFIGS, ids=row_name)
def test_config_builds(path):
    cfg = load(path)
    roi_heads = build(cfg).roi_heads
    classes = class_groups(cfg).num_classes
    assert roi_heads.predictor.cls_score.out_features == roi_heads.predictor.groups[-1].stop
    assert roi_heads.predictor.groups[-1].stop == classes
    assert classes == 80 or {"OwnData", "Puppets", "EPIC-Kitchens", "UCF101-24"} & set(path.parts)
    interaction, node = roi_heads.interaction, cfg.MODEL.INTERACTION
    assert (interaction is None) == (node.NAME == "")
    if interaction is not None:
        parts = getattr(interaction, "parts", [interaction])
        assert " + ".join(type(x).__name__ for x in parts) == node.NAME
    if hasattr(interaction, "blocks"):
        assert [block[0] for block in interaction.blocks] == list(node.BLOCKS)
        assert interaction.needs_memory == ("M" in node.BLOCKS)
        assert interaction.attend_padding == node.ATTEND_PADDING
    if cfg.MODEL.MEMORY.FROZEN_WEIGHTS:
        assert interaction.needs_memory, "nobody would look at the frozen memory"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "UCF101-24").glob("[!B]*.yaml")))
def test_ucf101_24(path):
    """AIA, Sec. 5: C2D of one frame, no pooling along time; the schedule is ours."""
    facts = {
        "INPUT.NUM_FRAMES": 1,
        "INPUT.NEGATIVE_PERSONS_TRAIN": 2,
        "MODEL.SLOWFAST.TEMPORAL_BLOCKS": (0, 0, 0, 0),
        "MODEL.ROI_ACTION_HEAD.GROUP_SIZES": (24,),
        "MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS": (),
        "MODEL.MEMORY.SLOTS_PER_SECOND": 5.0,
        "MODEL.MEMORY.WINDOW": (30, 30),
        "DATASETS.UCF101_24.TRAIN_FRAME_STRIDE": 5,
        "TEST.MULTIPLY_PERSON_SCORE": True,
        "SOLVER.IMS_PER_BATCH": 64,
        "SOLVER.BASE_LR": 0.004,
        "SOLVER.STEPS": (10000, 13000),
        "SOLVER.MAX_ITER": 15000,
        "SOLVER.WARMUP_ITERS": 2000,
    }
    assert values(load(path), facts) == facts
    backbone = build(load(path)).backbone
    kernels = {m.kernel_size[0] for m in backbone.modules() if isinstance(m, torch.nn.Conv3d)}
    assert kernels == {1} and backbone.output_shape()["slow"].stride == 16


def test_data_sets_have_known_names():
    used = {
        name
        for path in CONFIGS
        for name in (*load(path).DATASETS.TRAIN, *load(path).DATASETS.TEST)
        if not load(path).DATASETS.FOLDERS  # those are registered by the folder's name
    }
    assert sorted(used - set(DatasetCatalog.list())) == []


def test_children_are_short():
    """A child states the difference; what is shared belongs into a base."""
    long = [path for path in CONFIGS if len(path.read_text().splitlines()) > 12]
    assert long == []


def test_an_output_folder_belongs_to_one_training():
    """Configurations share a folder only if they are the same; the tables have equal rows."""
    folders: dict[str, set[str]] = {}
    for path in CONFIGS:
        folders.setdefault(load(path).OUTPUT_DIR, set()).add(load(path).dump())
    assert "./output" not in folders
    assert [folder for folder, trainings in folders.items() if len(trainings) > 1] == []


# ---------------------------------------------------------------- the recipes
def test_every_model_has_both_recipes():
    expected = {AVA / folder / f"{model}.yaml" for folder, model in AVA_CONFIGS}
    assert sorted(expected - set(CONFIGS)) == []


@pytest.mark.parametrize(("folder", "model"), AVA_CONFIGS)
def test_recipe(folder, model):
    recipe = FOLDERS[folder]
    facts = {**BOTH, **RECIPES[recipe]}
    if recipe == "released" and model.startswith("slowfast"):
        # The released baselines have a shorter schedule.
        facts.update({"SOLVER.STEPS": (50000, 70000), "SOLVER.MAX_ITER": 90000})
    cfg = load(AVA / folder / f"{model}.yaml")
    assert values(cfg, facts) == facts
    assert cfg.DATASETS.TRAIN == ("ava_v2.2_train",)
    assert cfg.DATASETS.TEST == ("ava_v2.2_val",)
    slow = (50, 16, 8) if "R50_4x16" in model else (101, 8, 4)
    assert (cfg.MODEL.SLOWFAST.DEPTH, cfg.MODEL.SLOWFAST.TAU, cfg.MODEL.SLOWFAST.ALPHA) == slow
    assert cfg.OUTPUT_DIR == f"./{Path('output') / folder / model}"


@pytest.mark.parametrize("model", MODELS)
def test_recipes_differ_in_nothing_but_the_recipe(model):
    paper, released = (load(AVA / folder / f"{model}.yaml") for folder in FOLDERS)
    recipe = {*RELEASED, "OUTPUT_DIR", "MODEL.MEMORY.FROZEN_WEIGHTS"}
    assert set(differences(paper, released)) <= recipe


def differences(one: CfgNode, other: CfgNode, prefix: str = "") -> list[str]:
    """Keys of which two configurations have different values."""
    found = []
    for key, value in one.items():
        if isinstance(value, CfgNode):
            found += differences(value, other[key], f"{prefix}{key}.")
        elif value != other[key]:
            found.append(prefix + key)
    return found


def test_released_loss_weights():
    """The released loss weights means over classes; ours sums over them (golden/README 2.4)."""
    groups = class_groups(load(AVA / "released" / "aia_dense_R50_4x16.yaml"))
    released = {"pose": 1.2, "object": 49.0, "person": 17.0}
    for group, size, weight in zip(groups.names, groups.sizes, groups.loss_weights):
        terms = 1 if group in groups.exclusive else size  # one cross entropy, or one a class
        assert weight * terms == pytest.approx(released[group])


def test_released_rates_and_schedule(shared):
    """Against the authors' optimiser and schedule (golden/README 2.9, i2)."""
    path = shared / "golden" / "data" / "i2_optimizer_and_initialisation.json"
    golden = json.loads(path.read_text())
    cfg = load(AVA / "released" / "aia_dense_R50_4x16.yaml")
    optimizer = build_optimizer(cfg, build(cfg))
    found = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    expected = {
        (g["lr"], g["weight_decay"]) for groups in golden["groups"].values() for g in groups
    }
    assert sorted(found) == [pytest.approx(pair) for pair in sorted(expected)]
    assert {group["momentum"] for group in optimizer.param_groups} == {golden["momentum"]}
    scheduler = build_lr_scheduler(cfg, optimizer)
    for iteration, factor in golden["schedule_factor_at_iteration"].items():
        scheduler.last_epoch = int(iteration)
        for rate, group in zip(scheduler.get_lr(), optimizer.param_groups):
            assert rate == pytest.approx(factor * group["initial_lr"]), iteration


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if load(p).MODEL.MEMORY.FROZEN_WEIGHTS], ids=row_name
)
def test_frozen_memory_comes_from_the_baseline_of_the_same_recipe(path):
    cfg = load(path)
    weights = Path(cfg.MODEL.MEMORY.FROZEN_WEIGHTS)
    assert weights.name == "model_final.pth"
    models = [p for p in CONFIGS if {AVA, AVA.parent / "Puppets"} & set(p.parents)]
    (baseline,) = (x for x in map(load, models) if Path(x.OUTPUT_DIR) == weights.parent)
    assert baseline.MODEL.INTERACTION.NAME == ""
    assert baseline.DATASETS == cfg.DATASETS and baseline.MODEL.SLOWFAST == cfg.MODEL.SLOWFAST
    if "Puppets" not in path.parts:  # there the start is a backbone that knows little
        assert baseline.SOLVER.IMS_PER_BATCH == cfg.SOLVER.IMS_PER_BATCH


# ---------------------------------------------------------------- the tables
def test_every_configuration_of_the_projects_is_a_row():
    rows = {path for project in ("AIA", "IGMN") for path in table_rows(project).values()}
    assert set(PROJECTS.glob("*/configs/*.yaml")) <= rows
    assert rows <= set(CONFIGS)


def test_documented_commands_load():
    """Among them what AVA v2.1 takes, and a frozen memory from the baseline of the same data."""
    found = {}
    for flag, config, *options in documented_commands():
        assert flag == "--config-file"
        options = options[2:] if options[:1] == ["--num-gpus"] else options
        options = options[1:] if options[:1] == ["--eval-only"] else options
        cfg = setup_cfg(str(ROOT / config), options)
        found[Path(cfg.OUTPUT_DIR).as_posix()] = cfg
    for model in ("aia_dense_R50_4x16", "lfb_R50_4x16", "igmn_R50_4x16"):
        cfg = found[f"output/v2.1/{model}"]
        assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == ("ava_v2.1_train", "ava_v2.1_val")
        assert set(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST) <= set(DatasetCatalog.list())
    frozen = found["output/v2.1/lfb_R50_4x16"].MODEL.MEMORY.FROZEN_WEIGHTS
    assert frozen == "output/v2.1/slowfast_R50_4x16/model_final.pth"


def test_every_row_of_table_1_has_a_config():
    assert set(table_rows("AIA")) == set(TABLE_1)


@pytest.mark.parametrize("row", TABLE_1)
def test_row_of_table_1(row):
    structure, blocks, *frozen = TABLE_1[row]
    cfg = load(table_rows("AIA")[row])
    assert cfg.MODEL.INTERACTION.NAME == structure
    if blocks:
        assert "".join(cfg.MODEL.INTERACTION.BLOCKS) == blocks
    assert bool(cfg.MODEL.MEMORY.FROZEN_WEIGHTS) == bool(frozen)
    # An ablation differs from the baseline in the interaction, and in nothing else.
    changed = differences(load(AVA / "slowfast_R50_4x16.yaml"), cfg)
    mine = ["MODEL.INTERACTION.NAME", "MODEL.INTERACTION.BLOCKS", "MODEL.MEMORY.FROZEN_WEIGHTS"]
    if row.startswith("1e"):  # whose ratios tell the width
        mine += ["MODEL.INTERACTION.DIM", "MODEL.INTERACTION.TEMPORAL_POSITION"]
    assert set(changed) <= {*mine, "OUTPUT_DIR"}


def test_parameters_of_table_1e():
    """The paper's ratios; a frozen memory needs the baseline beside the model."""
    rows = table_rows("AIA")

    def parameters(path: Path) -> int:
        return sum(p.numel() for p in build(load(path)).parameters())

    baseline = parameters(rows["1e_none"])
    for name, ratio in (("lfb", 1.18), ("ia", 1.35)):
        with_amu, without_amu = (rows[f"1e_{name}_{x}_amu"] for x in ("with", "without"))
        assert parameters(with_amu) / baseline == pytest.approx(ratio, abs=0.005)
        assert parameters(without_amu) / baseline + 1 == pytest.approx(ratio + 1, abs=0.005)
    # The released models, and the configurations of the other tables, are wider.
    for config, ratio in (("aia_serial_R50_4x16", 2.04), ("lfb_amu_R50_4x16", 1.58)):
        assert parameters(AVA / f"{config}.yaml") / baseline == pytest.approx(ratio, abs=0.005)


def test_the_recipe_for_the_test_server():
    """All but data and schedule as in training alone; longer by the videos, 299 of 235."""
    alone, both = (load(AVA / f"aia_dense_R101_8x8{x}.yaml") for x in ("", "_trainval"))
    expected = {"DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.STEPS", "SOLVER.MAX_ITER", "OUTPUT_DIR"}
    assert set(differences(alone, both)) == expected
    for mine, theirs in zip(
        (*both.SOLVER.STEPS, both.SOLVER.MAX_ITER), (*alone.SOLVER.STEPS, alone.SOLVER.MAX_ITER)
    ):
        assert mine / theirs == pytest.approx(299 / 235, abs=2e-3)


def test_overrides_come_in_pairs():
    file = str(ROOT / "configs" / "Puppets" / "none.yaml")
    for opts in (["SEED", "7"], ["--", "SEED", "7"]):
        assert setup_cfg(file, opts).SEED == 7
    for opts in (["SEED"], ["--", "SEED"]):
        with pytest.raises(ValueError, match="KEY VALUE pairs"):
            setup_cfg(file, opts)


# ---------------------------------------------------------------- EPIC-Kitchens
EPIC = ROOT / "configs" / "EPIC-Kitchens"
TABLE_4 = {"slowfast": NONE[0], "aia_parallel": PARALLEL, "aia_serial": SERIAL, "aia_dense": DENSE}
EPIC_FACTS = {
    "MODEL.ROI_HEADS.NAME": "SegmentHeads",
    "MODEL.MEMORY.SHARED_SLOTS": True,
    "MODEL.MEMORY.SLOTS_PER_SECOND": 1.0,
    "INPUT.NUM_FRAMES": 64,
    "INPUT.CLIP_FPS": 30.0,
    "INPUT.MAX_HANDS": 4,
    "INPUT.HAND_SCORE_THRESH": 0.5,
    "INPUT.MAX_OBJECTS": 5,
    "INPUT.BOX_JITTER": (0.0, 0.0, 0.0, 0.0),
    "TRACKER_HEADS.TRACKER_NAME": "",
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.BASE_LR": 0.004,
}
EPIC_KINDS = {
    "verb": {
        "MODEL.ROI_ACTION_HEAD.GROUP_SIZES": (125,),
        "MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS": ("verb",),
        "MODEL.MEMORY.WINDOW": (20, 20),
        "MODEL.MEMORY.DETECTOR_CHANNELS": 0,
        "SOLVER.MAX_ITER": 9000,
        "SOLVER.STEPS": (7000, 8000),
        "DATASETS.TEST": ("epic55_verbs_val",),
    },
    "noun": {
        "MODEL.ROI_ACTION_HEAD.GROUP_SIZES": (352,),
        "MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS": ("noun",),
        "MODEL.MEMORY.WINDOW": (6, 6),
        "MODEL.MEMORY.MAX_PERSONS": 10,
        "MODEL.MEMORY.DETECTOR_CHANNELS": 1024,
        "SOLVER.MAX_ITER": 12500,
        "SOLVER.STEPS": (10000, 11250),
        "DATASETS.TEST": ("epic55_nouns_val",),
    },
}


@pytest.mark.parametrize("kind", EPIC_KINDS)
@pytest.mark.parametrize("method", TABLE_4)
def test_row_of_table_4(kind, method):
    cfg = load(EPIC / f"{kind}_{method}_R50_4x16.yaml")
    facts = {**EPIC_FACTS, **EPIC_KINDS[kind], "MODEL.INTERACTION.NAME": TABLE_4[method]}
    assert values(cfg, facts) == facts
    if method.startswith("aia"):
        interaction = build(cfg).roi_heads.interaction
        width = 1024 if kind == "noun" else 2304
        assert interaction.memory_projection[0].in_features == width and interaction.hands
    readme = (PROJECTS / "AIA" / "README.md").read_text(encoding="utf-8")
    assert f"`configs/EPIC-Kitchens/{{verb,noun}}_{method}_R50_4x16.yaml`" in readme
