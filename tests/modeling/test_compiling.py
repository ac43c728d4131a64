"""MODEL.COMPILE: the same results from compiled parts, under the same names."""

from __future__ import annotations

import functools

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.engine.inference import build_memory_pool
from alphaaction_d2.modeling.interaction.inspection import record_attention
from tests.helpers import build_trainer, model_input, small_cfg, write_dataset

BOTH = ("MODEL.COMPILE", ("backbone", "interaction"))
IGMN = ("MODEL.INTERACTION.NAME", "IGMN", "MODEL.INTERACTION.FUSION", "replace")
AIA = ("MODEL.INTERACTION.NAME", "DenseSerialInteraction")


@pytest.fixture
def no_check(monkeypatch):
    monkeypatch.setattr("alphaaction_d2.modeling.meta_arch.check_compiler", lambda device: None)


def compiled_modules(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, x in model.named_modules() if x._compiled_call_impl}


@pytest.mark.parametrize("parts", [(), ("backbone",), ("interaction",), BOTH[1]])
def test_what_is_compiled_keeps_its_names(parts, no_check):
    plain = build_model(small_cfg(None, *IGMN))
    model = build_model(small_cfg(None, *IGMN, "MODEL.COMPILE", parts))
    assert compiled_modules(model) == {x.replace("interaction", "roi_heads") for x in parts}
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_model_without_interaction(no_check):
    model = build_model(small_cfg(None, "MODEL.INTERACTION.NAME", "", *BOTH))
    assert compiled_modules(model) == {"backbone"}


def test_a_missing_compiler_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "g++"),))
    torch.compiler.reset()
    assert run_tool(lambda: build_model(small_cfg(None, *BOTH)) and 0) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert "MODEL.COMPILE: torch.compile does not work here" in line and "g++" in line


def test_an_unknown_part_is_told():
    with pytest.raises(ValueError, match="MODEL.COMPILE"):
        build_model(small_cfg(None, "MODEL.COMPILE", ("heads",)))


def step(model: nn.Module, inputs: list[dict]) -> dict[str, torch.Tensor]:
    """Losses, gradients and statistics of normalisation after a step in training."""
    model.train().zero_grad()
    torch.manual_seed(0)
    losses = model(inputs)
    sum(losses.values()).backward()
    found = {name: x.detach() for name, x in losses.items()}
    found |= {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
    return found | {name: x.clone().float() for name, x in model.named_buffers()}


def same_as_plain(opts: tuple) -> None:
    # Dropout draws from a generator of its own in compiled code.
    cfg = small_cfg(None, "MODEL.INTERACTION.DROPOUT", 0.0, *opts)
    torch.manual_seed(0)
    plain = build_model(cfg)
    cfg.MODEL.COMPILE = BOTH[1]
    model = build_model(cfg)
    model.load_state_dict(plain.state_dict())
    for persons in ((2, 3), (1, 4)):
        inputs = [model_input(cfg, n, 2) for n in persons]
        build_memory_pool(cfg, model).attach(inputs, training=True)
        found, expected = (step(x, inputs) for x in (model, plain))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3, msg=name)
    with torch.no_grad():
        rows, expected = (x.eval()(inputs) for x in (model, plain))
        for one, other in zip(rows, expected):
            scores = other["instances"].action_scores
            torch.testing.assert_close(one["instances"].action_scores, scores, atol=1e-4, rtol=0)
        with record_attention(model.roi_heads.interaction, 1.0) as recorded:
            model(inputs)
    assert len(recorded) == len(inputs) and recorded[0].memory


@pytest.mark.slow
@pytest.mark.parametrize("opts", [AIA, (*IGMN, "MODEL.SLOWFAST.FROZEN", True)])
def test_results_of_the_compiler_are_the_same(opts):
    same_as_plain(opts)


@pytest.mark.slow
def test_a_run_with_compiled_parts_resumes_without(tmp_path, monkeypatch):
    """The tracer alone, which decides what there is to resume; the compiler takes minutes."""
    eager = functools.partialmethod(nn.Module.compile, backend="eager")
    monkeypatch.setattr(nn.Module, "compile", eager)
    data = write_dataset(tmp_path / "own")
    results = []
    for parts, steps in ((BOTH[1], 2), ((), 4), (BOTH[1], 4)):
        cfg = small_cfg(data, "MODEL.COMPILE", parts, "SOLVER.MAX_ITER", steps)
        cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = (), 2
        trainer = build_trainer(cfg, tmp_path / "output")
        trainer.resume_or_load(resume=bool(results))
        trainer.train()
        results.append(trainer.model.state_dict())
        assert trainer._last_eval_results["ava"]["mAP@0.5"] >= 0
    assert results[0].keys() == results[1].keys() == results[2].keys()
    assert all(torch.equal(x, results[2][name]) for name, x in results[1].items())
