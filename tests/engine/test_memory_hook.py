"""What the memory hook stores of a step: the persons of all its parts, at the step's loss."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from detectron2.modeling import build_model

from alphaaction_d2.engine import MemoryHook
from alphaaction_d2.engine.train_loop import TrainStep
from alphaaction_d2.memory import MemoryPool
from tests.helpers import model_input, small_cfg


def test_persons_of_all_parts_are_stored_in_order():
    torch.manual_seed(0)
    # Statistics of a batch would depend on its parts.
    cfg = small_cfg(None, "MODEL.MEMORY.DTYPE", "float32", "MODEL.SLOWFAST.NORM", "FrozenBN")
    model = build_model(cfg)
    counts = [2, 0, 3, 1]
    batch = [model_input(cfg, n, 1, timestamp=t) for t, n in enumerate(counts)]
    keyframes = [("v", t, n) for t, n in enumerate(counts)]
    pool = MemoryPool(cfg, model.roi_heads.num_channels, keyframes=keyframes)
    hook = MemoryHook(pool, model.roi_heads.interaction)
    hook.trainer = SimpleNamespace(last_step=TrainStep(batch, 0.5))
    hook.before_train()
    model(batch[:1])  # of something else, before the step
    hook.before_step()
    for part in (batch[:3], batch[3:]):
        pool.attach(part, training=True)
        sum(model(part).values()).backward()
    with torch.no_grad():
        model.eval()(batch)  # testing is nobody's memory
        clips = model.train().extract(batch)
    hook.after_step()
    hook.after_train()
    assert pool.err == 0.5 and len(pool) == sum(counts)
    assert not model.roi_heads.interaction._forward_hooks
    window = pool.read("v", 3, training=False)
    for offset, clip in zip((-2, -1), clips[1:3]):
        best_first = clip.persons[clip.persons.objectness_logits.argsort(descending=True)]
        stored = window.features[window.centre + offset][: len(best_first)]
        torch.testing.assert_close(stored, best_first.roi_features)
        assert not stored.requires_grad
