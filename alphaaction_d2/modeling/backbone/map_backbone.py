"""Any video network as a backbone: it runs up to one of its layers, whose output becomes a map.

Shape letters: N clips, T frames, H W picture, C channels, L tokens; t h w cells of a map or patches
of a clip.
"""

from __future__ import annotations

import bisect
import contextlib
import difflib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...checkpoint.sources import Converted
from ...checkpoint.sources.source import FOREIGN_LAYER
from .layers import FrozenBatchNorm3d, LongConv3d
from .video_backbone import VideoBackbone

Grid = tuple[int, int, int]
# Suits a network to a grid of patches: called with it, its parameters and the grid, it sets what
# has to be set and gives the parameters that take the place of others.
Fit = Callable[[nn.Module, Mapping[str, Tensor], Grid], dict[str, Tensor]]

_MOST_FRAMES = 512  # of clips that are tried in search of the least that a network takes
BEHIND = "what lies behind the layer that is used"
_REFUSALS = (RuntimeError, IndexError, AssertionError)  # what networks raise
_REDUCTIONS = (1, 2, 4, 8, 16, 32)  # of patches to cells, along a side


class MapBackbone(VideoBackbone):
    """A network, and which of its layers.

    A layer may give a map (N, C, t, h, w), one whose channels come last (N, t, h, w, C), or tokens
    (N, L, C), perhaps behind a class token. Channels and stride are measured on a dummy clip, by
    shapes alone: nothing is computed. What lies behind the layer is removed.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        *,
        num_frames: int,
        name: str = "",
        frames_first: bool = False,
        options: Mapping[str, Any] | None = None,
        fit: Fit | None = None,
        norm: str = "FrozenBN",
        frozen: bool = False,
    ) -> None:
        """
        Args:
            network: takes clips (N, 3, T, H, W), or with `frames_first` (N, T, 3, H, W).
            layer: its name in the network; "": what the network itself gives.
            num_frames: T of all clips to come.
            name: of the network in its library, if it is of one.
            options: further arguments of the network.
            fit: see :data:`Fit`; None: the network takes clips of any size as it is.
            norm: "FrozenBN" keeps batch normalisation as it was loaded, "BN" trains it.
            frozen: nothing in here trains, only what follows.

        Raises:
            ValueError: there is no such layer, or it gives no map; or the network does not take
                clips of `num_frames`.
        """
        super().__init__()
        self.name, self.is_known = name or type(network).__name__, bool(name)
        self.num_frames, self.frames_first, self.fit = num_frames, frames_first, fit
        self.options = dict(options or {})
        self.network = network.eval()  # as the dummy clip wants it, which is alone in its batch
        if layer:
            self._find(layer).register_forward_hook(_stop)
        conv: Any = next(m for m in network.modules() if isinstance(m, nn.Conv3d))
        self.first_conv = tuple(zip(conv.kernel_size, conv.stride, conv.padding))
        with torch.enable_grad():
            self.removed = self._measure(layer)
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                module.__class__ = LongConv3d  # which has nothing of its own but `forward`
        if norm == "FrozenBN":
            _freeze_normalisation(network)
        self.train()
        if frozen:
            self.freeze()

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """
        Args:
            clips: (N, 3, T, H, W), normalised, T = `num_frames`.

        Returns:
            {"map": (N, C, t, h, w)}

        Raises:
            ValueError: the network does not take clips of this length or size.
        """
        if clips.shape[2] != self.num_frames:
            raise ValueError(
                f"a clip of {clips.shape[2]} frames: {self.name} was built for clips of "
                f"{self.num_frames}"
            )
        return {"map": self._map(clips, dict(self.network.named_parameters()))}

    def convert(self, weights: Mapping[str, Tensor]) -> Converted | None:
        """Turn weights of the bare network, as its library names them, into this backbone's.

        Returns:
            None where they are of something else, or the network is of no library.
        """
        if not self.is_known:
            return None
        mine, left_over, converted = self.state_dict().keys(), {}, {}
        for name, value in weights.items():
            ours = f"network.{name}"
            if ours in mine or name.endswith("num_batches_tracked"):
                converted[ours] = value
            else:
                left_over[name] = BEHIND if name.startswith(self.removed) else FOREIGN_LAYER
        return Converted(converted, left_over) if 2 * len(converted) > len(mine) else None

    def _map(self, clips: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        grid = self._grid(clips)
        if self.fit is not None:
            parameters = {**parameters, **self.fit(self.network, parameters, grid)}
        clips = clips.transpose(1, 2) if self.frames_first else clips
        try:
            output = functional_call(self.network, parameters, (clips,), self.options)
        except _Reached as reached:
            (output,) = reached.args
        return as_map(output, grid)

    def _grid(self, clips: Tensor) -> Grid:
        """Count the patches of clips, or what the first convolution makes of them."""
        sizes = clips.shape[2:]
        for n, (kernel, stride, _) in zip(sizes, self.first_conv):
            if kernel == stride and n % stride:  # patches: what is left over would be cut off
                raise ValueError(
                    f"clips of {' x '.join(map(str, sizes))}: {self.name} takes multiples of "
                    f"{' x '.join(str(s) for _, s, _ in self.first_conv)}: see INPUT.NUM_FRAMES, "
                    "and for pictures MODEL.PAD_TO_STRIDE"
                )
        t, h, w = ((n + 2 * p - k) // s + 1 for n, (k, s, p) in zip(sizes, self.first_conv))
        return t, h, w

    def _find(self, layer: str) -> nn.Module:
        layers = dict(self.network.named_modules())
        if layer not in layers:
            close = difflib.get_close_matches(layer, layers, n=3, cutoff=0.4)
            known = close or [name for name, _ in self.network.named_children()]
            raise ValueError(
                f"MODEL.VIDEO_BACKBONE.LAYER {layer!r}: {self.name} has none of this name, but for "
                f"example {', '.join(known)}"
            )
        return layers[layer]

    def _measure(self, layer: str) -> tuple[str, ...]:
        """Run a dummy clip for the map's channels and stride; remove what it did not need.

        Returns:
            Names of the modules that were removed, with a dot behind.
        """
        side = 64 * max(stride for _, stride, _ in self.first_conv)
        trained = dict(self.network.named_parameters())
        dummies = {
            key: torch.empty_like(x, device="meta", requires_grad=key in trained)
            for key, x in itertools.chain(trained.items(), self.network.named_buffers())
        }

        def run(num_frames: int) -> Tensor:
            clip = torch.empty(1, 3, num_frames, side, side // 2, device="meta")
            return self._map(clip, dummies)

        def is_taken(num_frames: int) -> bool:
            with contextlib.suppress(*_REFUSALS):
                run(num_frames)
                return True
            return False

        try:
            found = run(self.num_frames)
        except _REFUSALS as error:
            kernel, step, _ = self.first_conv[0]
            longer = range(self.num_frames, _MOST_FRAMES, step if kernel == step else 1)
            least = bisect.bisect_left(longer, True, key=is_taken)
            fitting = f"it takes {longer[least]} and more" if least < len(longer) else "nor longer"
            raise ValueError(
                f"INPUT.NUM_FRAMES {self.num_frames}: {self.name} takes no such clips, {fitting}; "
                f"its layers say: {str(error).partition(chr(10))[0]}"
            ) from error
        height, width = found.shape[3:]
        stride = side // height
        if (stride * height, stride * width) != (side, side // 2):
            raise ValueError(
                f"MODEL.VIDEO_BACKBONE.LAYER {layer!r} of {self.name} makes {height} x {width} "
                f"cells of {side} x {side // 2} pixels, which is no stride: name another layer"
            )
        self._out_features = ["map"]
        self._out_feature_channels = {"map": found.shape[1]}
        self._out_feature_strides = {"map": stride}
        gradients = torch.autograd.grad(
            found.sum(), [dummies[key] for key in trained], allow_unused=True
        )
        return _remove(self.network, {key for key, x in zip(trained, gradients) if x is None})


def as_map(output: object, grid: Grid) -> Tensor:
    """Bring what a layer gives into the form of a map, (N, C, t, h, w).

    Args:
        output: a tensor, or what has one as its first entry.
        grid: patches of the clip, which tokens stand for one by one, or by groups of k x k.

    Raises:
        ValueError: it is no map, and has no tokens of such a grid.
    """
    x = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]
    t, height, width = grid
    for k in _REDUCTIONS:
        h, w = -(-height // k), -(-width // k)
        if x.dim() == 5 and tuple(x.shape[1:4]) == (t, h, w):
            return x.permute(0, 4, 1, 2, 3)
        if x.dim() == 3 and 0 <= (others := x.shape[1] - t * h * w) <= 1:
            return x[:, others:].transpose(1, 2).unflatten(2, (t, h, w))
    if x.dim() == 5:
        return x
    raise ValueError(
        f"MODEL.VIDEO_BACKBONE.LAYER gives {tuple(x.shape)}: expected a map (N, C, t, h, w), or "
        f"the tokens of {t} x {height} x {width} patches; name another layer"
    )


class _Reached(Exception):
    """The layer has been computed, with this output, and what follows need not be."""


def _stop(module: nn.Module, inputs: tuple, output: object) -> None:
    raise _Reached(output)


def _remove(network: nn.Module, unused: set[str]) -> tuple[str, ...]:
    """Take out the modules that have unused parameters only; single ones do not train."""
    removed: tuple[str, ...] = ()
    for name, module in list(network.named_modules()):
        inside = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if name and inside and inside <= unused and not f"{name}.".startswith(removed):
            network.set_submodule(name, nn.Identity())
            removed += (f"{name}.",)
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and key not in unused)
    return removed


def _freeze_normalisation(network: nn.Module) -> None:
    """Put frozen batch normalisation, with the same statistics, in the place of any other."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm3d):
            frozen = FrozenBatchNorm3d(module.num_features, module.eps)
            frozen.load_state_dict(module.state_dict(), strict=False)
            network.set_submodule(name, frozen)
