"""Who does what, when and where in videos: action detection with interactions and memory.

Importing the package registers its parts into detectron2's registries.
"""

import importlib
import logging
import sys
import traceback
import warnings

from .version import __version__


def _is_wanted() -> bool:
    """Whether the registering, which takes detectron2 and seconds, is what the import is for.

    `python -m alphaaction_d2 COMMAND` comes here before it is known what is to be done, which may
    be to install detectron2: the command imports the rest itself, see apps/command_line.py. And
    `import alphaaction_d2.deploy` comes here on its way to what runs without torch: that is seen
    by the name that Python's import is looking for.
    """
    if sys.argv[:1] == ["-m"] and "alphaaction_d2" in sys.orig_argv:
        return False
    finding = (x for x, _ in traceback.walk_stack(None) if x.f_code.co_name == "_find_and_load")
    names = (str(x.f_locals.get("name")) for x in finding)
    return not any(f"{name}.".startswith(f"{__name__}.deploy.") for name in names)


if _is_wanted():
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
        from . import data, modeling  # noqa: F401
        from .config import add_alphaaction_config
        from .data.datasets import register_datasets
        from .formats.config_files import setup_cfg
        from .tracking import tracker  # noqa: F401
    # detectron2's RoI pooling asks torch.fx a question that it answers with a warning every time.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
else:

    def __getattr__(name: str) -> object:
        """Register after all, when somebody asks for what that gives."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        importlib.reload(sys.modules[__name__])
        return globals()[name]


__all__ = ["__version__", "add_alphaaction_config", "register_datasets", "setup_cfg"]
