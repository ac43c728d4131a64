"""Mixed precision, accumulation, clipping, scaling, the best checkpoint, bad losses."""

from __future__ import annotations

import json
import math

import pytest
import torch

from alphaaction_d2.engine.hooks import BestCheckpoint
from alphaaction_d2.engine.solver import scale_to_batch
from alphaaction_d2.engine.train_loop import (
    ActionTrainLoop,
    explain_bad_step,
)
from alphaaction_d2.structures import Losses
from tests.helpers import build_trainer, small_cfg, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "feature_squares")


def make_trainer(folder, output, *opts):
    cfg = small_cfg(
        folder,
        *("SOLVER.CHECKPOINT_PERIOD", 100, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()"),
        *("SOLVER.WARMUP_ITERS", 0, "SEED", 1, *opts),
    )
    return build_trainer(cfg, output)


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def trained(folder, output, *opts) -> torch.Tensor:
    trainer = make_trainer(folder, output, *opts)
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_resumes(folder, tmp_path, dtype):
    sgd = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 1e-2)
    options = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype, *sgd)
    trainer = make_trainer(folder, tmp_path, *options)
    seen = []
    trainer.model.roi_heads.interaction.register_forward_hook(
        lambda module, inputs, output: seen.append(output[0].dtype)
    )
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert after.dtype == torch.float32 and after.isfinite().all()
    assert not torch.equal(before, after)
    assert getattr(torch, dtype) in seen, "the precision was used"
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    scaler = saved["trainer"]["_trainer"]["grad_scaler"]
    assert ("scale" in scaler) == (dtype == "float16"), "only float16 needs a loss scaler"
    again = make_trainer(folder, tmp_path, *options, "SOLVER.MAX_ITER", 5)
    again.resume_or_load(resume=True)
    assert again._trainer.scaler.state_dict() == scaler
    again.train()


def test_mixed_precision_steps_in_the_same_direction(folder, tmp_path):
    options = (
        *("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 1e-2, "SOLVER.MAX_ITER", 1),
        *("MODEL.SLOWFAST.NORM", "FrozenBN", "SOLVER.STEPS", "()"),
    )
    start = weights(make_trainer(folder, tmp_path, *options))
    plain = trained(folder, tmp_path / "plain", *options)
    mixed = trained(folder, tmp_path / "mixed", *options, "SOLVER.AMP.ENABLED", True)
    assert not torch.equal(mixed, plain)
    assert (mixed - plain).norm() < 0.1 * (plain - start).norm()


def test_unknown_precision_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE 'float8'"):
        make_trainer(folder, tmp_path, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "float8")


def test_a_batch_that_parts_do_not_divide_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="ACCUMULATION_STEPS 3 does not divide the 2 clips"):
        make_trainer(folder, tmp_path, "SOLVER.ACCUMULATION_STEPS", 3)


def test_gradients_are_clipped(folder, tmp_path):
    sgd = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.WEIGHT_DECAY", 0.0)
    limit = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    start = weights(make_trainer(folder, tmp_path, *sgd))
    one_step = ("SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 1.0, "SOLVER.STEPS", "()")
    free = trained(folder, tmp_path / "free", *sgd, *one_step)
    clipped = trained(
        *(folder, tmp_path / "clipped", *sgd, *one_step, *limit),
        *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", 2.0),
    )
    assert (clipped - start).norm().item() == pytest.approx(0.01, rel=1e-2)
    assert (free - start).norm() > 0.02


def test_schedule_follows_the_batch():
    cfg = small_cfg(
        None,
        *("SOLVER.REFERENCE_IMS_PER_BATCH", 64, "SOLVER.IMS_PER_BATCH", 16),
        *("SOLVER.BASE_LR", 0.004, "SOLVER.MAX_ITER", 27500, "SOLVER.STEPS", "(17500, 22500)"),
        *("SOLVER.WARMUP_ITERS", 2000, "SOLVER.CHECKPOINT_PERIOD", 2500, "TEST.EVAL_PERIOD", 5000),
    )
    node = scale_to_batch(cfg).SOLVER
    assert node.BASE_LR == pytest.approx(0.001)
    assert (node.MAX_ITER, node.STEPS, node.WARMUP_ITERS) == (110000, (70000, 90000), 8000)
    assert node.CHECKPOINT_PERIOD == 10000
    assert scale_to_batch(cfg).TEST.EVAL_PERIOD == 20000
    assert scale_to_batch(scale_to_batch(cfg)) == scale_to_batch(cfg), "once is enough"
    cfg.SOLVER.IMS_PER_BATCH = 64
    assert scale_to_batch(cfg) is cfg
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH, cfg.SOLVER.IMS_PER_BATCH = 0, 3
    assert scale_to_batch(cfg) is cfg


def test_the_trainer_scales(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "SOLVER.REFERENCE_IMS_PER_BATCH", 1)
    assert trainer.max_iter == 2 and trainer.optimizer.defaults["lr"] == pytest.approx(0.002)


def test_best_checkpoint_keeps_the_best_and_is_not_resumed_from(folder, tmp_path):
    class Scores:
        """Stands in for the evaluation: a value after every step."""

        values = iter([0.2, 0.7, 0.5, 0.7])

    trainer = make_trainer(folder, tmp_path, "TEST.BEST_METRIC", "ava/mAP@0.5")
    hooks = trainer._hooks
    position = next(i for i, h in enumerate(hooks) if isinstance(h, BestCheckpoint))
    kept = {}

    class Measure(type(hooks[0]).__mro__[1]):
        def after_step(self):
            value = next(Scores.values)
            trainer.storage.put_scalar("ava/mAP@0.5", value, smoothing_hint=False)
            kept[trainer.iter] = weights(trainer)

    hooks.insert(position, Measure())
    trainer.train()
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert record == {"metric": "ava/mAP@0.5", "value": 0.7, "iteration": 1}
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert set(saved) == {"model", "class_names", "class_groups"}  # nothing to resume from
    again = make_trainer(folder, tmp_path, "SOLVER.MAX_ITER", 6)
    again.checkpointer.load(str(tmp_path / "model_best.pth"))
    assert torch.equal(weights(again), kept[1])
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    # A resumed run knows the best value; a new one does not.
    resumed = make_trainer(
        folder, tmp_path, "TEST.BEST_METRIC", "ava/mAP@0.5", "SOLVER.MAX_ITER", 5
    )
    hook = next(h for h in resumed._hooks if isinstance(h, BestCheckpoint))
    hook.before_train()
    assert hook._best == -math.inf
    resumed.resume_or_load(resume=True)
    hook.before_train()
    assert hook._best == 0.7


def test_a_metric_that_is_never_measured_is_named(folder, tmp_path, caplog):
    trainer = make_trainer(folder, tmp_path, "TEST.BEST_METRIC", "ava/mAP", "SOLVER.MAX_ITER", 1)
    trainer.cfg.DATASETS.TEST = (f"{folder.name}_val",)
    trainer.train()
    assert "'ava/mAP' was never measured" in caplog.text and "ava/mAP@0.5" in caplog.text


def test_a_gradient_that_is_not_finite_stops_the_run(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    bias = trainer.model.roi_heads.predictor.cls_score.bias
    bias.register_hook(lambda gradient: gradient * math.inf)
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match="Gradient is not finite at iteration 0"):
        trainer.train()
    assert torch.equal(weights(trainer), before) and len(trainer.pool) == 0


def test_bad_steps_are_explained_in_one_line():
    clip = {"video_id": "film", "timestamp": 902}
    line = explain_bad_step(7, {"loss_pose": torch.tensor(math.nan)}, 1.0, [clip])
    assert line.startswith("Loss is not finite at iteration 7: {'loss_pose': nan}")
    assert "film at 902 s" in line and "\n" not in line


class OneLoss(torch.nn.Module):
    """A model whose loss is NaN for one clip."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        losses = Losses()
        losses.add("loss", self.weight * sum(x["value"] for x in batch), len(batch))
        return losses


class OneBatch:
    """A loader of one batch, of two processes."""

    batch_size, world_size, seed = 2, 2, 1

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        return iter([self.batch])


def _one_step(rank: int, folder, answers) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    clip = {"video_id": f"film{rank}", "timestamp": 5, "value": math.nan if rank else 1.0}
    clips = OneBatch([clip])
    model = OneLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loop = ActionTrainLoop(model, clips, optimizer, None)
    loop.iter = 7
    try:
        loop.run_step()
    except FloatingPointError as error:
        answers.put((rank, str(error), model.weight.item()))
    torch.distributed.destroy_process_group()


def test_a_bad_loss_of_one_process_stops_all_with_its_clips(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_one_step, args=(r, tmp_path, answers)) for r in (0, 1)]
    for process in processes:
        process.start()
    told = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert [rank for rank, _, _ in told] == [0, 1]
    assert told[0][1] == told[1][1] and "iteration 7" in told[0][1]
    assert "film1 at 5 s" in told[0][1] and "film0" not in told[0][1]
    assert [weight for _, _, weight in told] == [1.0, 1.0], "no step was taken"
