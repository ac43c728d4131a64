"""Where names, addresses and paths of configurations and weights lead to."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from .download import cache_folder, is_address, local_file, place_of
from .table import closest, find

logger = logging.getLogger(__name__)

# Beside this file where the package is installed, else in the checkout that it is in.
_CONFIGS = (Path(__file__).parent / "configs", Path(__file__).resolve().parents[2] / "configs")


def get_config_file(name: str) -> str:
    """The path of a configuration of the zoo, by its name below `configs/` (".yaml" may be left
    out) or that of published weights; RuntimeError where there is none, as in detectron2."""
    entry = find(name)
    if entry is not None and not entry.config:
        raise RuntimeError(f"{name}: no configuration of this project fits these weights yet")
    wanted = entry.config if entry is not None else name
    wanted = wanted if wanted.endswith((".yaml", ".py")) else f"{wanted}.yaml"
    for folder in _CONFIGS:
        if (folder / wanted).is_file():
            return str(folder / wanted)
    raise RuntimeError(f"{name}: no such configuration in the model zoo{closest(name)}")


def get_checkpoint_url(name: str) -> str:
    """The address of published weights; RuntimeError where there is none, as in detectron2."""
    entry = find(name)
    if entry is None:
        raise RuntimeError(f"{name}: no such weights in the model zoo{closest(name)}")
    if not entry.address:
        raise RuntimeError(f"{name}: no program can download {entry.file}; get it at {entry.page}")
    return entry.address


def find_config(text: str) -> str:
    """The path of a configuration that is named by its path, its address or its name;
    FileNotFoundError or `DownloadError` where it cannot be had."""
    if is_address(text):
        return local_file(text)
    if not os.path.isfile(text):
        try:
            return get_config_file(text)
        except RuntimeError as error:
            if find(text) is not None:
                raise FileNotFoundError(str(error)) from None
            raise FileNotFoundError(
                f"{text}: no such configuration file, and none of this name in the model zoo"
                f"{closest(text)}"
            ) from None
    return text


def is_here(text: str) -> bool:
    """Whether weights, named as for :func:`local_weights`, need not be downloaded."""
    entry = None if os.path.exists(text) else find(text)
    address = entry.address if entry is not None else text
    return not is_address(address) or place_of(address).is_file()


@functools.cache  # once: weights are asked for more than once on the way
def _tell(name: str, score: str, licence: str) -> None:
    logger.info("%s: %s; licence of the weights: %s", name, score, licence)


@functools.cache
def warn_of_licence(weights: str, licence: str) -> None:
    """Say, once, that weights are not free for every use; an empty `licence` says nothing."""
    if licence:
        logger.warning("%s: licence of these weights: %s", weights, licence)


def local_weights(text: str) -> str:
    """The path of weights that are named by their path, their address or their name;
    FileNotFoundError or `DownloadError` where they cannot be had."""
    if is_address(text):
        return local_file(text)
    if os.path.exists(text):
        return text
    entry = find(text)
    if entry is None:
        raise FileNotFoundError(
            f"{text}: no such weights: expected a file, an address or a name of the model zoo"
            f"{closest(text)}"
        )
    _tell(text, entry.score, entry.licence)
    if entry.address:
        return local_file(entry.address)
    path = cache_folder() / entry.source / entry.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{text}: no program can download {entry.file}: get it at {entry.page} and put it at "
            f"{path}, or name its path"
        )
    return str(path)
