"""What people start: the commands, whose scripts in tools/ are a few lines each."""

import warnings

# detectron2 still uses what today's torch calls deprecated, and imports it late.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
