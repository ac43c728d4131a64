"""Who does what, when and where in videos: action detection with interactions and memory.

Importing the package registers its parts into detectron2's registries.
"""

from .version import __version__

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":  # detectron2 is there, something it needs is not
        raise
    raise ImportError(
        "alphaaction_d2 needs detectron2, which is missing here and is not on PyPI: in a checkout "
        "of alphaaction_d2, run `python tools/install_detectron2.py`,\n"
        "or install it as described at "
        "https://detectron2.readthedocs.io/tutorials/install.html"
    ) from None

# These imports register the backbones, the heads, the interaction modules and the data sets.
from . import data, modeling  # noqa: E402, F401
from .config import add_alphaaction_config, setup_cfg  # noqa: E402
from .data.datasets import register_datasets  # noqa: E402

__all__ = ["__version__", "add_alphaaction_config", "register_datasets", "setup_cfg"]
