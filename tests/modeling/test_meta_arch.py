"""The whole model on random inputs: shapes, empty sets, independence of clips, gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2.structures import MemoryWindow
from tests.helpers import model_input, small_cfg

METHODS = ["", "SerialInteraction", "DenseSerialInteraction", "ParallelInteraction"]


def build(*opts):
    torch.manual_seed(0)
    cfg = small_cfg(None, *opts)
    model = build_model(cfg)
    for name, parameter in model.named_parameters():
        # Blocks start as identities; with other weights every part matters.
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return cfg, model


def with_memory(cfg, model, inputs):
    """Give every clip a window as it comes out of a pool: two persons in every slot but its own."""
    before, after = cfg.MODEL.MEMORY.WINDOW
    offsets = torch.arange(-before, after + 1)
    shape = (len(offsets), cfg.MODEL.MEMORY.MAX_PERSONS)
    valid = (torch.arange(shape[1]) < 2) & (offsets != 0)[:, None]
    for x in inputs:
        features = torch.randn(*shape, model.roi_heads.num_channels) * valid[..., None]
        x["memory"] = MemoryWindow(
            features=features.to(torch.float16),
            valid=valid,
            person_ids=torch.where(valid, torch.arange(shape[1]), -1),
            boxes=torch.rand(*shape, 4) * valid[..., None],
            weights=torch.ones(shape[0]),
            fresh_centre=torch.tensor(True),
            offsets=offsets,
        )
    return inputs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [[(2, 1), (0, 0), (3, 2)], [(0, 0)], [(1, 0)], [(0, 2), (0, 0)]])
def test_training_touches_every_parameter(method, counts):
    cfg, model = build("MODEL.INTERACTION.NAME", method)
    losses = model([model_input(cfg, p, o) for p, o in counts])
    assert set(losses) == {"loss_pose", "loss_object"}
    sum(losses.values()).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert not untouched
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_clips_do_not_see_each_other(method):
    cfg, model = build("MODEL.INTERACTION.NAME", method)
    model.eval()
    inputs = [model_input(cfg, 3, 2), model_input(cfg, 1, 0, video_id="w"), model_input(cfg, 0, 1)]
    inputs = with_memory(cfg, model, inputs)
    with torch.no_grad():
        together = model(copy.deepcopy(inputs))
        alone = [model([x])[0] for x in copy.deepcopy(inputs)]
    for one, other in zip(together, alone):
        torch.testing.assert_close(one["instances"].scores, other["instances"].scores)


@pytest.mark.parametrize("method", METHODS[1:])
def test_order_of_persons_and_objects_does_not_matter(method):
    cfg, model = build("MODEL.INTERACTION.NAME", method)
    model.eval()
    x = with_memory(cfg, model, [model_input(cfg, 3, 2)])[0]
    y = {**x, "proposals": x["proposals"][[2, 0, 1]], "objects": x["objects"][[1, 0]]}
    with torch.no_grad():
        first, second = (model([clip])[0]["instances"] for clip in (x, y))
    scores = first.scores.view(3, -1)[[2, 0, 1]]
    torch.testing.assert_close(second.scores.view(3, -1), scores)


@pytest.mark.parametrize("method", METHODS[1:])
def test_persons_objects_and_memory_all_matter(method):
    cfg, model = build("MODEL.INTERACTION.NAME", method)
    model.eval()
    x = with_memory(cfg, model, [model_input(cfg, 2, 2)])[0]

    def scores(clip):
        with torch.no_grad():
            return model([clip])[0]["instances"].scores.view(-1, 3)[0]

    base = scores(x)
    assert not torch.allclose(base, scores({**x, "objects": x["objects"][:0]}))
    assert not torch.allclose(base, scores({**x, "proposals": x["proposals"][:1]}))
    without = {key: value for key, value in x.items() if key != "memory"}
    assert not torch.allclose(base, scores(without))


def test_a_clip_without_objects_or_memory_leaves_the_others_theirs():
    cfg, model = build()
    model.eval()
    first, second = with_memory(cfg, model, [model_input(cfg, 2, 2), model_input(cfg, 1, 1)])
    bare = {key: second[key] for key in second if key not in ("objects", "memory")}
    with torch.no_grad():
        together, alone = model([first, bare]), model([first])
    torch.testing.assert_close(together[0]["instances"].scores, alone[0]["instances"].scores)


def test_broken_weights_are_not_taken_for_nobody():
    cfg, model = build()
    model.eval()
    with torch.no_grad():
        model.roi_heads.predictor.cls_score.bias.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="not finite"):
            model([model_input(cfg, 1, 0)])


def test_results_are_in_the_wanted_size_with_original_boxes():
    cfg, model = build("MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST", "(0.2, 0.2)")
    model.eval()
    x = model_input(cfg, 2, 0)
    with torch.no_grad():
        result = model([x])[0]
    rows = result["instances"]
    assert result["video_id"] == "v" and result["timestamp"] == 3
    assert rows.image_size == (96, 128) and len(rows) == 6
    expected = 2 * x["proposals"].proposal_boxes.tensor.repeat_interleave(3, dim=0)
    torch.testing.assert_close(rows.pred_boxes.tensor, expected)


def test_an_image_is_a_still_clip_of_one_person():
    cfg, model = build()
    model.eval()
    image = torch.rand(3, 48, 64) * 255
    with torch.no_grad():
        rows = model([{"image": image, "height": 96, "width": 128}])[0]["instances"]
    assert rows.pred_boxes.tensor[0].tolist() == [0, 0, 128, 96]
    assert rows.pred_classes.tolist() == [0, 1, 2]
    assert model([]) == []


def test_channels_last_is_the_order_of_the_backbones_weights():
    # What comes out of a convolution follows them where the processor has a kernel for it.
    _, model = build("MODEL.CHANNELS_LAST", True)
    weights = [p for p in model.backbone.parameters() if p.dim() == 5]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in weights)


def test_bfloat16_and_channels_last_hardly_change_results():
    cfg, exact = build()
    _, fast = build("MODEL.CHANNELS_LAST", True, "TEST.DTYPE", "bfloat16")
    fast.load_state_dict(exact.state_dict())
    inputs = with_memory(cfg, exact.eval(), [model_input(cfg, 3, 2), model_input(cfg, 1, 0)])
    seen = {}

    def look(module, args, output):
        seen.update(output)

    fast.eval().backbone.register_forward_hook(look)
    with torch.no_grad():
        expected, found = (model(copy.deepcopy(inputs)) for model in (exact, fast))
        features = fast.extract(inputs)[0].persons.roi_features
    assert [x.dtype for x in seen.values()] == [torch.bfloat16] * 2
    assert features.dtype == torch.float32
    for one, other in zip(expected, found):
        assert other["instances"].scores.dtype == torch.float32
        torch.testing.assert_close(
            one["instances"].scores, other["instances"].scores, atol=0.02, rtol=0
        )
        assert not torch.equal(one["instances"].scores, other["instances"].scores)


def test_precision_of_testing_does_not_reach_training():
    cfg, model = build("TEST.DTYPE", "bfloat16")
    dtypes = []
    model.backbone.register_forward_hook(lambda *x: dtypes.append(x[-1]["slow"].dtype))
    model([model_input(cfg, 1, 1)])
    assert dtypes == [torch.float32]


@pytest.mark.parametrize("method", METHODS)
def test_training_in_mixed_precision(method):
    cfg, model = build("MODEL.INTERACTION.NAME", method, "MODEL.INTERACTION.DROPOUT", 0.0)
    inputs = with_memory(cfg, model, [model_input(cfg, 2, 1), model_input(cfg, 0, 0)])
    dtypes = []
    model.roi_heads.pooler.register_forward_pre_hook(lambda _, x: dtypes.append(x[0][0].dtype))
    exact = model(copy.deepcopy(inputs))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(inputs)
    assert dtypes == [torch.float32] * 2  # RoIAlign
    sum(losses.values()).backward()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], atol=0, rtol=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_preprocessing_leaves_the_input_as_it_is():
    cfg, model = build()
    clip = {"video": torch.rand(3, cfg.INPUT.NUM_FRAMES, 48, 64) * 255}
    before = clip["video"].clone()
    tensor = model.preprocess([clip]).tensor
    assert torch.equal(clip["video"], before)
    mean, std = (
        torch.tensor(x).view(-1, 1, 1, 1) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    torch.testing.assert_close(tensor[0], (before - mean) / std, atol=0, rtol=0)


def test_bad_configurations_are_named():
    with pytest.raises(KeyError, match="known: DenseSerialInteraction"):
        build("MODEL.INTERACTION.NAME", "Nonsense")
    with pytest.raises(ValueError, match="BLOCKS"):
        build("MODEL.INTERACTION.BLOCKS", "('X',)")
    with pytest.raises(ValueError, match="'concat'"):
        build("MODEL.INTERACTION.DIM_OUT", 7)
    with pytest.raises(ValueError, match="TEST.DTYPE 'float16' is not one of"):
        build("TEST.DTYPE", "float16")
    with pytest.raises(ValueError, match="same length"):
        build("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(2,)")
