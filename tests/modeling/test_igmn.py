"""The second paper's models as a whole: built from a configuration, trained, tested."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from alphaaction_d2 import register_datasets
from alphaaction_d2.engine import Trainer
from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.interaction.dam import LOSSES
from alphaaction_d2.modeling.interaction.hgnn import HGNN
from alphaaction_d2.modeling.interaction.igmn import IGMN
from alphaaction_d2.modeling.interaction.inspection import record_attention
from alphaaction_d2.modeling.roi_heads import extend_boxes
from tests.helpers import model_input, small_cfg, write_dataset

LOSS_NAMES = {f"loss_{name}" for name in LOSSES}


def igmn_cfg(folder=None, name: str = "IGMN", *opts: object) -> CfgNode:
    cfg = small_cfg(folder)
    cfg.MODEL.INTERACTION.NAME = name
    cfg.MODEL.INTERACTION.FUSION = "replace"
    cfg.MODEL.DAM.DIM = cfg.MODEL.DAM.DIM_MEMORY = 8
    cfg.merge_from_list(list(opts))
    return cfg


def training_input(cfg: CfgNode, persons: int, *, memory: bool = True) -> dict:
    """With original boxes, jittered ones around them, and a window in which half is filled."""
    x = model_input(cfg, persons, 1)
    boxes = x["proposals"].proposal_boxes.tensor
    x["instances"].gt_boxes = Boxes(boxes)
    x["proposals"].proposal_boxes = Boxes(boxes + torch.tensor([-2.0, -1.0, 2.0, 3.0]))
    if memory:
        x["memory"] = random_window(cfg)
    return x


def random_window(cfg: CfgNode):
    channels = build_model(cfg).roi_heads.num_channels
    window = empty_window(1, tuple(cfg.MODEL.MEMORY.WINDOW), 3, channels, torch.device("cpu"))
    valid = torch.rand(window.valid.shape) < 0.5
    fields = {
        "features": (torch.rand(window.features.shape) * valid[..., None]).half(),
        "valid": valid,
        "person_ids": torch.randint(-1, 4, valid.shape),
        "boxes": window.boxes,
        "weights": window.weights,
    }
    return replace(window, **{name: value[0] for name, value in fields.items()})


@pytest.mark.parametrize("name", ["HGNN", "IGMN"])
@pytest.mark.parametrize("counts", [[2, 0, 3], [0], [1]])
@pytest.mark.parametrize("memory", [True, False])
def test_every_parameter_has_a_gradient(name, counts, memory):
    torch.manual_seed(0)
    cfg = igmn_cfg(None, name)
    model = build_model(cfg)
    losses = model([training_input(cfg, n, memory=memory) for n in counts])
    assert set(losses) == {"loss_pose", "loss_object"} | (LOSS_NAMES if name == "IGMN" else set())
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_result_is_the_graph_plus_the_attention():
    torch.manual_seed(0)
    cfg = igmn_cfg()
    model = build_model(cfg).eval()
    module = model.roi_heads.interaction
    assert isinstance(module, IGMN) and isinstance(module.hgnn, HGNN)
    x = training_input(cfg, 3)
    window = x["memory"]
    memory = type(window).stack([replace(window, features=window.features.float())])
    with torch.no_grad():
        clips = model.extract([x])
        result, losses = module(clips, memory)
        layers = module.hgnn.actor_features(clips, memory)
        context, _ = module.dam(clips, layers.mean(dim=1))
        torch.testing.assert_close(result, module.hgnn(clips, memory)[0] + context)
    assert losses == {} and layers.shape == (3, 3, cfg.MODEL.INTERACTION.DIM)
    assert result.shape == (3, module.dim_out)


def test_a_sum_of_modules_is_what_each_of_them_finds():
    torch.manual_seed(0)
    cfg = igmn_cfg(None, "DenseSerialInteraction + IGMN")
    model = build_model(cfg)
    module = model.roi_heads.interaction
    aia, igmn = module.parts
    assert module.needs_memory and module.needs_roi_maps and not module.takes_segments
    xs = [training_input(cfg, n) for n in (2, 0, 3)]
    losses = model(xs)
    assert set(losses) == {"loss_pose", "loss_object"} | LOSS_NAMES
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]

    windows = [replace(x["memory"], features=x["memory"].features.float()) for x in xs]
    memory = type(windows[0]).stack(windows)
    model.eval()
    with torch.no_grad(), record_attention(module) as attention:
        clips = model.extract(xs)
        result, losses = module(clips, memory)
        expected = [part(clips, memory)[0] for part in (aia, igmn)]
    torch.testing.assert_close(result, expected[0] + expected[1])
    assert losses == {} and result.shape == (5, module.dim_out) and expected[0].abs().max() > 0
    assert len(attention[0].memory) == len(aia.memory_attention()) + 3
    assert len(attention[0].clip) == len(aia.clip_attention()) + 3
    assert set(attention[0].maps) == {"semantic", "identity"}


def test_every_module_of_a_sum_must_be_known():
    with pytest.raises(KeyError, match="NAME 'Nobody' is not registered; known: .*HGNN"):
        build_model(igmn_cfg(None, "HGNN + Nobody"))


@pytest.mark.parametrize(
    "fusion, dim_out", [("add", 0), ("concat", 0), ("concat", 9), ("replace", 9)]
)
def test_fusion_and_widths(fusion, dim_out):
    opts = ("MODEL.INTERACTION.FUSION", fusion, "MODEL.INTERACTION.DIM_OUT", dim_out)
    cfg = igmn_cfg(None, "IGMN", *opts)
    results = build_model(cfg).eval()([training_input(cfg, 2)])
    assert len(results[0]["instances"]) == 6


# Rows of the paper's Table 1 as configurations.
TABLE = {
    "HGNN, 1 stage": ("HGNN", "MODEL.HGNN.NUM_LAYERS", 1),
    "HGNN-s, 3 stages": ("HGNN", "MODEL.HGNN.AGGREGATOR", "", "MODEL.HGNN.DOWN_SAMPLE", False),
    "HGNN (frozen)": ("HGNN", "MODEL.HGNN.UPDATE_MEMORY", False),
    "HGNN (GCN)": ("HGNN", "MODEL.HGNN.AGGREGATOR", "gcn", "MODEL.HGNN.DOWN_SAMPLE", False),
    "+Semantic": ("IGMN", "MODEL.DAM.IDENTITY", False),
    "+Identity": ("IGMN", "MODEL.DAM.SEMANTIC", False),
    "w/o cls": ("IGMN", "MODEL.DAM.LOSSES", "('sem_prior','idt_prior')"),
    "w/o prior": ("IGMN", "MODEL.DAM.LOSSES", "('sem_cls','idt_cls')"),
    "w/o aux": ("IGMN", "MODEL.DAM.LOSSES", "()"),
    "unreachable kept": ("HGNN", "MODEL.HGNN.KEEP_UNREACHABLE", True),
    "others only": ("HGNN", "MODEL.HGNN.EXCLUDE_SELF", True),
    "temporal positions": ("HGNN", "MODEL.HGNN.TEMPORAL_POSITION", True),
}


@pytest.mark.parametrize("row", TABLE)
def test_every_row_of_the_table_trains(row):
    torch.manual_seed(0)
    cfg = igmn_cfg(None, *TABLE[row])
    model = build_model(cfg)
    losses = model([training_input(cfg, n) for n in (2, 0, 3)])
    expected = LOSS_NAMES if TABLE[row][0] == "IGMN" else set()
    if row.startswith("w/o"):
        expected = {f"loss_{name}" for name in cfg.MODEL.DAM.LOSSES}
    elif row.startswith("+"):
        expected = {n for n in LOSS_NAMES if n[5:8] == ("sem" if row == "+Semantic" else "idt")}
    assert set(losses) == {"loss_pose", "loss_object"} | expected
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_attention_knows_where_test_boxes_were_pooled():
    cfg = igmn_cfg(None, "IGMN", "MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST", "(0.25,0.25)")
    model = build_model(cfg)
    x = training_input(cfg, 3)
    boxes = x["proposals"].proposal_boxes
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            clip = model.extract([x])[0]
        grown = boxes if training else extend_boxes(boxes, (0.25, 0.25), clip.persons.image_size)
        torch.testing.assert_close(clip.pooled_boxes.tensor, grown.tensor)
        torch.testing.assert_close(clip.persons.proposal_boxes.tensor, boxes.tensor)


def test_model_learns_a_batch():
    torch.manual_seed(0)
    cfg = igmn_cfg()
    model = build_model(cfg)
    batch = [training_input(cfg, n) for n in (3, 0, 2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(25):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(sum(losses.values()).item())
    assert history[-1] < 0.6 * history[0]
    with torch.no_grad():
        results = model.eval()(batch)
    assert [len(x["instances"]) for x in results] == [9, 0, 6]
    assert all(x["instances"].scores.isfinite().all() for x in results)


def test_trainer_with_memory_trains_and_evaluates(tmp_path):
    folder = write_dataset(tmp_path / "squares_of_igmn")
    cfg = igmn_cfg(folder, "IGMN", "SOLVER.MAX_ITER", 3)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    register_datasets(cfg)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert len(trainer.pool) > 0
    assert 0 <= trainer._last_eval_results["ava"]["mAP@0.5"] <= 100
