"""Configuration files: merged as by detectron2, without running code; errors name file and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg

from alphaaction_d2 import add_alphaaction_config, setup_cfg
from alphaaction_d2.formats.config_files import (
    ConfigError,
    UnknownKeyError,
    all_keys,
    merge_config_file,
    merge_overrides,
)
from alphaaction_d2.formats.yaml_files import MAX_BYTES, YAMLFileError, read_yaml
from tests.helpers import CONFIGS


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def fresh():
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    return cfg


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_a_file_means_what_it_means_to_detectron2(path):
    ours, theirs = fresh(), fresh()
    merge_config_file(ours, str(path))
    theirs.merge_from_file(str(path), allow_unsafe=False)
    assert ours.dump() == theirs.dump()


def test_a_written_configuration_is_read_again(tmp_path):
    cfg = setup_cfg(str(CONFIGS / "Puppets" / "igmn.yaml"), ["OUTPUT_DIR", "2024"])
    assert cfg.OUTPUT_DIR == "2024"  # a text stays a text, whatever it looks like
    again = setup_cfg(write(tmp_path, "all.yaml", cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "x.yaml: not a YAML configuration of KEY: VALUE"),
        ("5", "x.yaml: not a YAML configuration"),
        ("hello", "x.yaml: not a YAML configuration"),
        ("- a\n- b", "x.yaml: not a YAML configuration"),
        ("model = dict(type='x')\n", "x.yaml: not a YAML configuration"),
        ("MODEL:\n\tWEIGHTS: x", "x.yaml:2: a tab: indent with spaces"),
        (b"\0\1\2", "x.yaml: not a YAML file"),
        (b"\x80\x81", "x.yaml: not a text file"),
        ("MODEL: 5", "x.yaml: MODEL: 5: expected a section"),
        ("MODEL: null", "x.yaml: MODEL: None: expected a section"),
        ("MODEL: [1, 2]", "x.yaml: MODEL: [1, 2]: expected a section"),
        ("MODEL: {DEVICE: {A: 1}}", "x.yaml: MODEL.DEVICE: a section; expected a value"),
        ("5: 6", "x.yaml: 5: expected the name of a key"),
        ("MODEL: {5: 6}", "x.yaml: MODEL.5: expected the name of a key"),
        ("NOPE: 1", "x.yaml: there is no key NOPE"),
        ("MODEL: {MEMRY: {WINDOW: 1}}", "no key MODEL.MEMRY"),
        ("MODEL: {MEMORY: {WINDWO: 1}}", "did you mean MODEL.MEMORY.WINDOW?"),
        ("MODEL: {WINDOW: 1}", "did you mean MODEL.MEMORY.WINDOW?"),
        ("VERSION: 1", "x.yaml: VERSION 1: expected 2"),
        ("VERSION: x", "x.yaml: VERSION 'x': expected 2"),
        ("_BASE_: 5", "x.yaml: _BASE_: 5: expected the name of a file"),
        ("_BASE_: [5]", "x.yaml: _BASE_: [5]: expected the name of a file"),
        ("_BASE_: x.yaml", "x.yaml: _BASE_ leads back"),
        ("MODEL: {DEVICE: a, DEVICE: b}", "x.yaml:1: 'DEVICE' comes twice"),
        ("SOLVER: {MAX_ITER: many}", "SOLVER.MAX_ITER: 'many': expected a whole number like"),
        ("SOLVER: {MAX_ITER: 1.5}", "SOLVER.MAX_ITER: 1.5: expected a whole number like"),
        ("SOLVER: {BASE_LR: x}", "SOLVER.BASE_LR: 'x': expected a number like"),
        ("SOLVER: {STEPS: 7}", "SOLVER.STEPS: 7: expected a list like"),
        ("SOLVER: {STEPS: '{1}'}", "SOLVER.STEPS: '{1}': expected a list like"),
        ("MODEL: {CHANNELS_LAST: 1}", "MODEL.CHANNELS_LAST: 1: expected True or False"),
        ("MODEL: {DEVICE: 1}", "MODEL.DEVICE: 1: expected a text like"),
        ("MODEL: " + "[" * 5000, "x.yaml:1: "),
        ("MODEL: " + "[" * 60 + "]" * 60, "x.yaml:1: nested more than"),
        ("a: &a [*a]", "x.yaml:1: an alias that holds itself"),
        (f"a: {'x' * MAX_BYTES}", "bytes; expected"),
        ("MODEL: {DEVICE: !!binary aGk=}", "MODEL.DEVICE: b'hi': expected a text"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path, text, complaint):
    path = write(tmp_path, "x.yaml", text)
    with pytest.raises((ConfigError, YAMLFileError)) as caught:
        setup_cfg(path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path)) and complaint in message
    assert "\n" not in message


def test_a_file_or_its_base_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such configuration file"):
        setup_cfg("nowhere.yaml")
    path = write(tmp_path, "x.yaml", "_BASE_: nope.yaml")
    with pytest.raises(FileNotFoundError, match=r"x\.yaml: _BASE_: .*nope\.yaml: no such config"):
        setup_cfg(path)


def test_the_error_names_the_base_that_holds_it(tmp_path):
    write(tmp_path, "base.yaml", "MODEL: {DEVICE: cpu, NOPE: 1}")
    path = write(tmp_path, "child.yaml", "_BASE_: base.yaml\nMODEL: {DEVICE: cpu}")
    with pytest.raises(UnknownKeyError, match=r"base\.yaml: there is no key MODEL\.NOPE"):
        setup_cfg(path)


def test_several_bases_one_after_the_other(tmp_path):
    write(tmp_path, "a.yaml", "SOLVER: {MAX_ITER: 1, BASE_LR: 1}")
    write(tmp_path, "b.yaml", "SOLVER: {MAX_ITER: 2}")
    cfg = setup_cfg(write(tmp_path, "c.yaml", "_BASE_: [a.yaml, b.yaml]"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (2, 1.0)
    assert isinstance(cfg.SOLVER.BASE_LR, float)


def test_a_base_of_two_bases_resets_nothing(tmp_path):
    write(tmp_path, "base.yaml", "SOLVER: {MAX_ITER: 1, BASE_LR: 1}")
    write(tmp_path, "a.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 2}")
    write(tmp_path, "b.yaml", "_BASE_: base.yaml\nSOLVER: {BASE_LR: 3}")
    cfg = setup_cfg(write(tmp_path, "c.yaml", "_BASE_: [a.yaml, b.yaml]"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (2, 3.0)


@pytest.mark.parametrize("inherited", [False, True])
def test_no_file_runs_code(tmp_path, monkeypatch, inherited):
    monkeypatch.chdir(tmp_path)
    evil = write(
        tmp_path, "evil.yaml", 'MODEL: {DEVICE: !!python/object/apply:os.system ["touch ran"]}'
    )
    path = write(tmp_path, "child.yaml", "_BASE_: evil.yaml") if inherited else evil
    with pytest.raises(YAMLFileError, match=r"evil\.yaml:1: .*nothing is built or called"):
        setup_cfg(path)
    assert not os.path.exists("ran")


@pytest.mark.parametrize(
    ("opts", "complaint"),
    [
        (["MODEL.DEVICE"], "KEY VALUE pairs"),
        (["MODEL.NOPE", "1"], "override: there is no key MODEL.NOPE"),
        (["MODEL", "1"], "override: MODEL: '1': expected a section"),
        (["SOLVER.MAX_ITER", "x"], "override: SOLVER.MAX_ITER: 'x': expected a whole number"),
        (["SOLVER.STEPS", "(1,"], "SOLVER.STEPS: '(1,': expected a list"),
        (["SOLVER.STEPS", "(" * 9999], "SOLVER.STEPS"),
    ],
)
def test_overrides_that_cannot_be_used(opts, complaint):
    with pytest.raises(ConfigError) as caught:
        merge_overrides(fresh(), opts)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_a_device_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"MODEL\.DEVICE: 'gpu': expected cpu, cuda or cuda:0"):
        setup_cfg(str(CONFIGS / "Small" / "aia.yaml"), ["MODEL.DEVICE", "gpu"])


def test_overrides_take_python_values():
    cfg = fresh()
    merge_overrides(
        cfg, ["--", "SOLVER.STEPS", "[1, 2]", "SOLVER.BASE_LR", 2, "DATASETS.TEST", "('a',)"]
    )
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR, cfg.DATASETS.TEST) == ((1, 2), 2.0, ("a",))


def test_every_key_keeps_its_own_value():
    cfg = fresh()
    before = cfg.dump()
    for key in list(all_keys(cfg)):
        value = cfg
        for name in key.split("."):
            value = value[name]
        merge_overrides(cfg, [key, value])
    assert cfg.dump() == before


def test_aliases_that_multiply(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(YAMLFileError, match="with its aliases"):
        read_yaml(write(tmp_path, "laughs.yaml", "\n".join(lines)))
    assert read_yaml(write(tmp_path, "fine.yaml", "a: &a [1]\nb: *a")) == {"a": [1], "b": [1]}


def test_the_hostile_configurations(shared, tmp_path):
    paths = sorted((shared / "cases" / "hostile").glob("*.yaml"))
    assert len(paths) > 15
    for path in paths:
        with pytest.raises((ConfigError, YAMLFileError, FileNotFoundError)) as caught:
            setup_cfg(str(path))
        named = path.name in str(caught.value) or "aia.yaml" in str(caught.value)
        assert named or path.name == "config_date.yaml"  # its text could come from anywhere
        assert "\n" not in str(caught.value)


def test_dates_stay_texts(tmp_path):
    assert read_yaml(write(tmp_path, "d.yaml", "a: 2020-99-99")) == {"a": "2020-99-99"}
    with pytest.raises(ValueError, match="month"):  # what plain YAML would do
        yaml.safe_load("a: 2020-99-99")
