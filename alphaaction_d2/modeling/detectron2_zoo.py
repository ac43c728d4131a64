"""detectron2's model zoo, also with a setuptools that no longer brings ``pkg_resources``."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def _resource_filename(package: str, name: str) -> str:
    """Give the path of a file in a package's folder: all that the zoo wants of pkg_resources."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # it is being imported
    return str(Path(spec.origin).parent / name)


def import_model_zoo() -> ModuleType:
    """Import ``detectron2.model_zoo``.

    It does `import pkg_resources`, which setuptools 81 and later lack and earlier ones load slowly
    and with a warning. It gets a stand-in, which is gone again afterwards: others that look whether
    there is a pkg_resources must not find this one.
    """
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_filename = _resource_filename  # type: ignore[attr-defined]  # a new module
    loaded = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = stand_in
    try:
        return importlib.import_module("detectron2.model_zoo")
    finally:
        del sys.modules["pkg_resources"]
        if loaded is not None:
            sys.modules["pkg_resources"] = loaded
