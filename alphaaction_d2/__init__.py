"""Who does what, when and where in videos: action detection with interactions and memory.

Importing the package registers its parts into detectron2's registries.
"""

import logging
import sys
import warnings

from .version import __version__

# `python -m alphaaction_d2 COMMAND` comes here before it is known what is to be done, which may be
# to install detectron2: the command imports the rest itself, see apps/command_line.py.
if sys.argv[:1] != ["-m"] or "alphaaction_d2" not in sys.orig_argv:
    try:
        import detectron2  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "detectron2":  # detectron2 is there, something it needs is not
            raise
        raise ImportError(
            "alphaaction_d2 needs detectron2, which is missing here and is not on PyPI: run "
            "`alphaaction setup` (in a checkout: `python tools/install_detectron2.py`),\n"
            "or install it as described at "
            "https://detectron2.readthedocs.io/tutorials/install.html"
        ) from None

    # These imports register the backbones, heads, interaction modules, data sets and tracker.
    # detectron2 still uses what today's torch calls deprecated; nobody who imports us can change
    # that.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
        from . import data, modeling, tracking  # noqa: F401
        from .config import add_alphaaction_config
        from .data.datasets import register_datasets
        from .formats.config_files import setup_cfg
    # detectron2's RoI pooling asks torch.fx a question that it answers with a warning every time.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


__all__ = ["__version__", "add_alphaaction_config", "register_datasets", "setup_cfg"]
