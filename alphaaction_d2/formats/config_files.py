"""Configuration files and overrides, merged key by key, so that every error names file and key.

detectron2's own `merge_from_file` hands a file to `yaml.unsafe_load` when it asks for objects; a
configuration read here never runs code.
"""

from __future__ import annotations

import ast
import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import torch
from detectron2.config import CfgNode, get_cfg

from ..config import add_alphaaction_config, short
from ..model_zoo.files import find_config
from ..model_zoo.networks import fill_network_defaults
from .yaml_files import read_yaml

logger = logging.getLogger(__name__)

_BASE = "_BASE_"
_VERSION = 2
_MAX_BASES = 20


class ConfigError(ValueError):
    """A configuration that cannot be used: file, key, what was expected. One line."""


class UnknownKeyError(ConfigError, KeyError):
    """A configuration key that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would quote it


def setup_cfg(config_file: str, opts: Sequence[object] = ()) -> CfgNode:
    """A configuration from defaults, a file and command-line overrides (KEY VALUE ...), not frozen.

    The file may be named by its path, its address or a name of the model zoo.

    Without a GPU the device becomes the CPU. A "--" before the overrides, where they begin on a
    command line, is none of them.

    Raises:
        ConfigError, YAMLFileError: the file or an override is not what it should be.
        UnknownKeyError: a key does not exist.
    """
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    merge_config_file(cfg, config_file)
    merge_overrides(cfg, opts)
    fill_network_defaults(cfg)
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError:
        device = short(cfg.MODEL.DEVICE)
        raise ConfigError(f"MODEL.DEVICE: {device}: expected cpu, cuda or cuda:0") from None
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        logger.info("No GPU: using the CPU.")
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """Merge a YAML file, and the files that it names as its bases; errors as in `setup_cfg`."""
    for file, values in _files_with_bases(str(path), (), set()):
        for key, value in _leaves(file, cfg, values):
            _merge(cfg, key, value, file)


def merge_overrides(cfg: CfgNode, opts: Sequence[object]) -> None:
    """Merge KEY VALUE pairs into `cfg`; texts are read as Python values where they are such."""
    opts = list(opts)
    if opts[:1] == ["--"]:
        opts = opts[1:]
    if len(opts) % 2:
        raise ConfigError(f"configuration overrides come as KEY VALUE pairs, got {opts}")
    for key, value in zip(opts[::2], opts[1::2]):
        _check_leaf(cfg, str(key), value, "override")
        _merge(cfg, str(key), value, "override")


def _files_with_bases(
    path: str, children: tuple[str, ...], merged: set[str]
) -> Iterator[tuple[str, dict]]:
    """(file, its contents) of the bases first, then of the file itself.

    A base that two bases share comes once: it must not reset what the first of them says.
    """
    if children and "://" not in path and not Path(path).is_file():
        raise FileNotFoundError(f"{children[-1]}: _BASE_: {path}: no such configuration file")
    local = find_config(path)
    identity = str(Path(local).resolve())
    if identity in children or len(children) >= _MAX_BASES:
        raise ConfigError(f"{path}: _BASE_ leads back to the file itself")
    values = read_yaml(local)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a YAML configuration of KEY: VALUE")
    version = values.pop("VERSION", _VERSION)
    if version != _VERSION:
        raise ConfigError(f"{path}: VERSION {version!r}: expected {_VERSION}")
    bases = values.pop(_BASE, [])
    for base in [bases] if isinstance(bases, str) else bases if isinstance(bases, list) else [None]:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: _BASE_: {bases!r}: expected the name of a file")
        base = str(Path(base).expanduser()) if base.startswith("~") else base
        if "://" not in base:  # beside the file
            base = urljoin(path, base) if "://" in path else str(Path(local).parent / base)
        yield from _files_with_bases(base, (*children, identity), merged)
    if identity not in merged:
        merged.add(identity)
        yield path, values


def _leaves(file: str, cfg: CfgNode, values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything that is no section, in the file's order."""
    for name, value in values.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{file}: {prefix}{name!r}: expected the name of a key")
        key = f"{prefix}{name}"
        current = _value_at(cfg, key)
        if isinstance(value, dict) and isinstance(current, CfgNode):
            yield from _leaves(file, cfg, value, f"{key}.")
        else:
            _check_leaf(cfg, key, value, file)
            yield key, value


_NOTHING = object()


def _value_at(cfg: CfgNode, key: str) -> Any:
    """What stands at a key, all at ""; _NOTHING where there is no such key."""
    value: Any = cfg
    for name in key.split(".") if key else ():
        if not isinstance(value, CfgNode) or name not in value:
            return _NOTHING
        value = value[name]
    return value


def _check_leaf(cfg: CfgNode, key: str, value: object, source: str) -> None:
    """Refuse keys that are not there, and values in the place of sections or the other way."""
    current = _value_at(cfg, key)
    if current is _NOTHING:
        section = _value_at(cfg, key.rpartition(".")[0])
        if isinstance(section, CfgNode) and section.is_new_allowed():  # any key may be in it
            return
        raise UnknownKeyError(f"{source}: there is no key {key}{_meant(cfg, key)}")
    if isinstance(current, CfgNode):
        raise ConfigError(f"{source}: {key}: {short(value)}: expected a section with keys")
    if isinstance(value, dict):
        raise ConfigError(f"{source}: {key}: a section; expected a value like {short(current)}")


def _meant(cfg: CfgNode, key: str) -> str:
    """The key that somebody probably meant."""
    known = list(all_keys(cfg))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    last = key.rpartition(".")[2]
    close = close or [name for name in known if name.rpartition(".")[2] == last][:1]
    return f"; did you mean {close[0]}?" if close else ""


def all_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    """The full names of all keys that hold values."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from all_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _merge(cfg: CfgNode, key: str, value: object, source: str) -> None:
    """Set one key to a value of the kind that it has."""
    section, _, name = key.rpartition(".")
    node = _value_at(cfg, section)
    assert isinstance(node, CfgNode), key
    if name not in node:  # in a section that is open to any key
        node[name] = CfgNode(value) if isinstance(value, dict) else _literal(value)
        return
    current = node[name]
    try:
        node[name] = _of_kind(value, current)
    except TypeError:
        kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
        expected = f"{kinds.get(type(current), 'a list')} like {short(current)}"
        raise ConfigError(f"{source}: {key}: {short(value)}: expected {expected}") from None


def _of_kind(value: object, current: object) -> object:
    """A value of the type of the current one; TypeError where it has none.

    As yacs, but a whole number is a number, and a text is a text whatever it looks like.
    """
    plain = _literal(value)
    if isinstance(current, str) and isinstance(value, str):
        return plain if isinstance(plain, str) else value
    if current is None or plain is None or type(plain) is type(current):
        return plain
    if isinstance(current, float) and type(plain) is int:
        return float(plain)
    if isinstance(current, tuple | list) and isinstance(plain, tuple | list):
        return type(current)(plain)
    raise TypeError


def _literal(value: object) -> object:
    """What a text says as a Python value, or the text; TypeError for kinds that no key has."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return value
    if value is not None and type(value) not in (bool, int, float, str, tuple, list):
        raise TypeError
    return value
