"""Segments as queries: what the heads pool, hands as keys, a detector's memory."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances

from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.roi_heads import SegmentHeads
from tests.kitchens import CHANNELS, kitchen_cfg

SIZES = [(48, 64), (40, 50)]
C = 7
STRUCTURES = ("SerialInteraction", "DenseSerialInteraction", "ParallelInteraction")


def heads(tmp_path, kind: str, *opts: object) -> SegmentHeads:
    torch.manual_seed(0)
    cfg = kitchen_cfg(tmp_path / "kitchen_heads", kind, *opts)
    return SegmentHeads(cfg, {"slow": ShapeSpec(channels=C, stride=8)}).eval()


def inputs(hands: int = 2, objects: int = 1) -> tuple:
    """Padded clips of two sizes, their maps, segments and boxes."""
    images = ImageList.from_tensors([torch.zeros(3, 4, *size) for size in SIZES], 16)
    height, width = images.tensor.shape[-2:]
    maps = {"slow": torch.rand(2, C, 3, height // 8, width // 8)}
    segments, things = [], []
    for i, size in enumerate(SIZES):
        boxes = Boxes(torch.tensor([[3.0, 3.0, 9.0, 9.0]]))
        segments.append(Instances(size, proposal_boxes=boxes, person_ids=torch.tensor([i])))
        n = hands + objects
        found = Instances(
            size,
            boxes=Boxes(torch.rand(n, 2).repeat(1, 2) * 10 + torch.tensor([0.0, 0.0, 20.0, 20.0])),
        )
        found.scores = torch.rand(n)
        found.is_hand = torch.arange(n) < hands
        things.append(found)
    return images, maps, segments, things


def test_the_query_is_the_mean_of_what_is_no_padding(tmp_path):
    images, maps, segments, things = inputs()
    clips = heads(tmp_path, "verb").pool(images, maps, segments, things)
    inside = maps["slow"][1][:, :, :5, :7]  # 40 x 50 pixels, of 48 x 64
    torch.testing.assert_close(clips[1].persons.roi_features, inside.mean(dim=(1, 2, 3))[None])
    whole = maps["slow"][0].mean(dim=(1, 2, 3))[None]
    torch.testing.assert_close(clips[0].persons.roi_features, whole)
    assert clips[1].persons.person_ids.tolist() == [1]
    changed = maps["slow"].clone()
    changed[1, :, :, 5:] += 100
    again = heads(tmp_path, "verb").pool(images, {"slow": changed}, segments, things)
    torch.testing.assert_close(again[1].persons.roi_features, clips[1].persons.roi_features)


def test_hands_and_objects_are_told_apart(tmp_path):
    images, maps, segments, things = inputs(hands=2, objects=3)
    model = heads(tmp_path, "verb")
    (clip, _) = model.pool(images, maps, segments, things)
    assert len(clip.hands) == 2 and len(clip.objects) == 3
    rois = model.pooler([maps["slow"].mean(dim=2)], [x.boxes for x in things])[:5].amax(dim=(2, 3))
    torch.testing.assert_close(clip.hands.roi_features, rois[:2])
    torch.testing.assert_close(clip.objects.roi_features, rois[2:])
    moved = clip.to(torch.device("cpu"), torch.float16).detach()
    assert moved.hands.roi_features.dtype == torch.float16
    assert moved.num_bytes == 2 * C * 6, "the hands count"


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", ["('P','O','M','P')", "('O','P')"])
def test_hands_are_keys_of_p_blocks(tmp_path, structure, blocks):
    options = ("MODEL.INTERACTION.NAME", structure, "MODEL.INTERACTION.BLOCKS", blocks)
    model = heads(tmp_path, "verb", *options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images, maps, segments, things = inputs()
    clips = model.pool(images, maps, segments, things)
    before = [x.scores.clone() for x in model.classify(clips)]
    clips[0].hands.roi_features[1] += 1
    after = [x.scores for x in model.classify(clips)]
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1]), "no hand of another clip"


def test_without_hands_every_parameter_has_a_gradient(tmp_path):
    model = heads(tmp_path, "verb").train()
    images, maps, segments, things = inputs(hands=0, objects=0)
    clips = model.pool(images, maps, segments, things)
    targets = []
    for size in SIZES:
        targets.append(Instances(size))
        targets[-1].gt_classes = torch.tensor([[1.0, 0.0]])
    sum(model.losses(clips, targets).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_loss_is_cross_entropy(tmp_path):
    model = heads(tmp_path, "noun", "MODEL.INTERACTION.NAME", "").train()
    clips = model.pool(*inputs())
    features = torch.cat([x.persons.roi_features for x in clips])
    targets = []
    for size, label in zip(SIZES, (2, 0)):
        targets.append(Instances(size))
        targets[-1].gt_classes = torch.nn.functional.one_hot(torch.tensor([label]), 3).float()
    (loss,) = model.losses(clips, targets).values()
    logits = model.predictor(model.head(features))
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]))
    )


def test_a_memory_of_another_width(tmp_path):
    model = heads(tmp_path, "noun")
    assert model.interaction.memory_projection[0].in_features == CHANNELS
    clips = model.pool(*inputs())
    alone = [x.scores for x in model.classify(clips)]
    memory = empty_window(2, (3, 3), 10, CHANNELS, torch.device("cpu"), fresh_centre=False)
    empty = [x.scores for x in model.classify(clips, memory)]
    torch.testing.assert_close(alone, empty)
    for parameter in model.interaction.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    memory.features[0, 3, 0] = 1
    memory.valid[0, 3, 0] = True
    filled = [x.scores for x in model.classify(clips, memory)]
    assert torch.isfinite(filled[0]).all()
    assert not torch.allclose(filled[0], model.classify(clips)[0].scores), "the centre counts"


@pytest.mark.parametrize(
    ("name", "opts", "words"),
    [
        ("HGNN", ("INPUT.MAX_HANDS", 0), "boxes and identities, which segments do not have"),
        ("NonLocalInteraction", ("INPUT.MAX_HANDS", 0), "use an AIA structure"),
        ("IGMN", (), "INPUT.MAX_HANDS"),
        ("HGNN", ("INPUT.MAX_HANDS", 0, "MODEL.MEMORY.DETECTOR_CHANNELS", 5), "DETECTOR_CHANNELS"),
    ],
)
def test_what_is_for_persons_refuses(tmp_path, name, opts, words):
    cfg = kitchen_cfg(tmp_path / "kitchen_heads", "verb", "MODEL.INTERACTION.NAME", name, *opts)
    with pytest.raises(ValueError, match=words):
        build_model(cfg)
