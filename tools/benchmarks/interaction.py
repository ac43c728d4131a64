"""Dense serial interaction at the released widths, beside the plain matrix products of its
definition.

Shape letters: N clips, P persons and O objects of a clip, S slots and M persons a slot of the
memory window, C width of RoI features, D inner width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.interaction import DenseSerialInteraction
from alphaaction_d2.structures import ClipFeatures, MemoryWindow
from benchmarks.measure import Row, interleaved_medians, num_threads


@dataclass(frozen=True)
class Sizes:
    """Shape letters as above; the memory's half window is S // 2 slots."""

    num_clips: int = 4
    persons: int = 4
    objects: int = 5
    half_window: int = 30
    persons_a_slot: int = 5
    channels: int = 2304
    inner: int = 1024

    @property
    def num_slots(self) -> int:
        return 2 * self.half_window + 1


QUICK = Sizes(num_clips=2, persons=2, objects=2, half_window=2, channels=24, inner=16)


def rows(quick: bool) -> Iterator[Row]:
    """Time of forward, and of forward and backward."""
    sizes = QUICK if quick else Sizes()
    torch.manual_seed(0)
    module = build(sizes).eval()
    clips, memory = random_input(sizes)
    person_features = [clip.persons.roi_features for clip in clips]
    wanted = [*module.parameters(), *person_features]

    def forward() -> None:
        with torch.no_grad():
            module(clips, memory)

    def forward_backward() -> None:
        for x in person_features:
            x.requires_grad_()
        features, _ = module(clips, memory)
        torch.autograd.grad(features.sum(), wanted)

    with num_threads(1):
        products, once, both = interleaved_medians(
            [matrix_products(module, sizes), forward, forward_backward], 2 if quick else 15
        )
    note = (
        f"{sizes.channels}/{sizes.inner}/{sizes.channels}, memory {sizes.num_slots} x "
        f"{sizes.persons_a_slot}, {sizes.num_clips} clips x {sizes.persons} persons x "
        f"{sizes.objects} objects, 1 thread"
    )
    yardstick = "matrix products"
    yield Row("dense serial IA, forward", 1e3 * once, "ms", 1e3 * products, yardstick, 1.2, note)
    yield Row("dense serial IA, both ways", 1e3 * both, "ms", 1e3 * products, yardstick, 4.0, note)


def build(sizes: Sizes) -> DenseSerialInteraction:
    """The module, with output projections that are not zero."""
    module = DenseSerialInteraction(
        dim_in=sizes.channels,
        dim_inner=sizes.inner,
        dim_out=sizes.channels,
        blocks=tuple("POMPOM"),
        num_slots=sizes.num_slots,
        dropout=0.2,
    )
    for block in module.blocks.values():
        nn.init.normal_(block.out.weight, std=0.01)
    return module


def random_input(sizes: Sizes) -> tuple[list[ClipFeatures], MemoryWindow]:
    """Clips, and a memory in which every place is taken."""

    def instances(count: int) -> Instances:
        return Instances((256, 340), roi_features=torch.randn(count, sizes.channels))

    clips = [
        ClipFeatures(instances(sizes.persons), instances(sizes.objects))
        for _ in range(sizes.num_clips)
    ]
    window = (sizes.half_window, sizes.half_window)
    memory = empty_window(
        sizes.num_clips, window, sizes.persons_a_slot, sizes.channels, torch.device("cpu")
    )
    memory.features.normal_()
    memory.valid.fill_(True)
    return clips, memory


def matrix_products(module: DenseSerialInteraction, sizes: Sizes) -> Callable[[], None]:
    """Every projection of the module once for every row of a batch, and attention's products."""
    counts = {
        "P": sizes.persons,
        "O": sizes.objects,
        "M": sizes.num_slots * sizes.persons_a_slot,
    }
    sets = {kind: torch.randn(sizes.num_clips, n, sizes.inner) for kind, n in counts.items()}
    features = {
        kind: torch.randn(sizes.num_clips * n, sizes.channels) for kind, n in counts.items()
    }
    query = sets["P"].flatten(0, 1)
    products: list[tuple[Tensor, nn.Module]] = [
        (features["P"], module.person_projection[0]),
        (features["P"], module.person_key_projection[0]),
        (features["O"], module.object_projection[0]),
        (features["M"], module.memory_projection[0]),
    ]
    for name, block in module.blocks.items():
        others = sets[name[0]].flatten(0, 1)
        products += [(query, block.query), (others, block.key), (others, block.value)]
        products += [(query, block.out), (query, block.shortcut)]
    pairs = [
        (rows_in, layer.weight.detach().t())
        for rows_in, layer in products
        if isinstance(layer, nn.Linear)
    ]
    attended = [sets[name[0]] for name in module.blocks]

    def run() -> None:
        for rows_in, weight in pairs:
            torch.mm(rows_in, weight)
        for others in attended:
            weights = torch.bmm(sets["P"], others.transpose(1, 2))
            torch.bmm(weights, others)

    return run
