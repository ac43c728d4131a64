"""IGMN's graph and its dual attention at the released widths, beside the plain matrix products of
their definitions.

Shape letters: N clips, P actors of a clip, S slots and M persons a slot of the memory window at a
level of the hierarchy, C width of RoI features, D inner width, K RoI grid side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.interaction import HGNN
from alphaaction_d2.modeling.interaction.dam import DualAttentionModule
from alphaaction_d2.structures import ClipFeatures, MemoryWindow
from benchmarks.measure import Row, interleaved_medians, num_threads

PICTURE = (256, 340)
CLASSES = range(14, 80)  # that do not exclude each other

# A product of a matrix and the transposed weights of a layer.
Product = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Shape letters as above; the memory's half window is S // 2 slots."""

    num_clips: int = 4
    actors: int = 4
    half_window: int = 30
    persons_a_slot: int = 5
    channels: int = 2304
    inner: int = 1024
    attention: int = 256
    grid: int = 7
    num_layers: int = 3


QUICK = Sizes(num_clips=2, actors=2, half_window=4, channels=24, inner=16, attention=8, grid=3)


def rows(quick: bool) -> Iterator[Row]:
    """Time of forward, and of forward and backward, of both modules."""
    sizes = QUICK if quick else Sizes()
    repeats = 2 if quick else 15
    torch.manual_seed(0)
    clips, memory = random_input(sizes)
    inputs = [x for c in clips for x in (c.persons.roi_features, c.persons.roi_maps)]
    graph = build_graph_network(sizes)
    attention = build_attention(sizes)
    context = torch.randn(sizes.num_clips * sizes.actors, sizes.inner)
    shape = f"{sizes.num_clips} clips x {sizes.actors} actors, 1 thread"
    note = f"{sizes.num_layers} layers, {sizes.channels}/{sizes.inner}, memory "
    note += f"{memory.valid.shape[1]} x {sizes.persons_a_slot}, {shape}"
    yield from _both_ways(
        "HGNN",
        lambda: graph(clips, memory)[0],
        [*graph.parameters(), *inputs[::2]],
        graph_products(graph, sizes),
        repeats,
        note,
        limit=1.5,
    )
    note = f"{sizes.channels}/{sizes.attention}, grid {sizes.grid}, {shape}"
    yield from _both_ways(
        "DAM",
        lambda: attention(clips, context)[0],
        [*attention.parameters(), *inputs[1::2]],
        attention_products(attention, sizes),
        repeats,
        note,
        limit=None,
    )


def _both_ways(
    name: str,
    run: Callable[[], Tensor],
    wanted: list[Tensor],
    products: list[Product],
    repeats: int,
    note: str,
    limit: float | None,
) -> Iterator[Row]:
    def forward() -> None:
        with torch.no_grad():
            run()

    def both() -> None:
        for x in wanted:
            x.requires_grad_()
        torch.autograd.grad(run().sum(), wanted, allow_unused=True)

    def plain() -> None:
        for rows_in, weight in products:
            torch.mm(rows_in, weight)

    def plain_both() -> None:  # the product, and those that the gradients of both factors are
        for rows_in, weight in products:
            result = torch.mm(rows_in, weight)
            torch.mm(result, weight.t())
            torch.mm(rows_in.t(), result)

    with num_threads(1):
        medians = interleaved_medians([plain, forward, plain_both, both], repeats)
    yardstick = "matrix products"
    for what, expected, value in (("forward", *medians[:2]), ("both ways", *medians[2:])):
        yield Row(f"{name}, {what}", 1e3 * value, "ms", 1e3 * expected, yardstick, limit, note)


def random_input(sizes: Sizes) -> tuple[list[ClipFeatures], MemoryWindow]:
    """Clips of actors who are in all slots of their window, in which every place is taken."""
    height, width = PICTURE
    clips = []
    for _ in range(sizes.num_clips):
        corners = torch.rand(sizes.actors, 2, 2).sort(dim=1).values
        boxes = Boxes((corners * torch.tensor([width, height])).flatten(1))
        persons = Instances(PICTURE, proposal_boxes=boxes)
        persons.person_ids = torch.arange(sizes.actors)
        persons.roi_features = torch.randn(sizes.actors, sizes.channels)
        persons.roi_maps = torch.randn(sizes.actors, sizes.channels, sizes.grid, sizes.grid)
        nothing = torch.zeros(sizes.actors, CLASSES.stop)
        clips.append(ClipFeatures(persons, Instances(PICTURE), gt_classes=nothing))
    window = (sizes.half_window, sizes.half_window)
    memory = empty_window(
        sizes.num_clips, window, sizes.persons_a_slot, sizes.channels, torch.device("cpu")
    )
    memory.features.normal_()
    memory.valid.fill_(True)
    memory.person_ids.copy_(torch.arange(sizes.persons_a_slot).expand_as(memory.person_ids))
    return clips, memory


def build_graph_network(sizes: Sizes) -> HGNN:
    """HGNN with output projections that are not zero."""
    module = HGNN(
        dim_in=sizes.channels,
        dim_inner=sizes.inner,
        dim_out=sizes.inner,
        num_layers=sizes.num_layers,
        window=(sizes.half_window, sizes.half_window),
    )
    for layer in module.layers:
        for block in (layer.intra_clip, layer.inter_clip):
            nn.init.normal_(block.out.weight, std=0.01)
    return module.train()


def build_attention(sizes: Sizes) -> DualAttentionModule:
    """Training mode: the auxiliary losses are part of its cost."""
    return DualAttentionModule(
        dim_in=sizes.channels,
        dim_memory=sizes.inner,
        dim_out=sizes.inner,
        dim_inner=sizes.attention,
        dim_reduced=sizes.attention,
        classes=list(CLASSES),
    ).train()


def graph_products(module: HGNN, sizes: Sizes) -> list[Product]:
    """Every projection of the definition once for every node that it is of at its level."""

    def features(count: int, width: int = sizes.inner) -> Tensor:
        return torch.randn(sizes.num_clips * count, width)

    slots, actors = 2 * sizes.half_window, sizes.actors
    remembered = slots * sizes.persons_a_slot
    layers = [(features(actors + remembered, sizes.channels), module.projection)]
    for i, layer in enumerate(module.layers):
        remembered = 2 * (sizes.half_window // 2**i) * sizes.persons_a_slot
        everybody, others, here = (
            features(actors + remembered),
            features(remembered),
            features(actors),
        )
        layers += [(everybody, layer.tracks.before), (everybody, layer.tracks.after)]
        inside, between = layer.intra_clip, layer.inter_clip
        layers += [(everybody, x) for x in (inside.query, inside.key, inside.value, inside.out)]
        layers += [(here, between.query), (here, between.out)]
        layers += [(others, between.key), (others, between.value)]
    return [(x, linear.weight.detach().t()) for x, linear in layers]


def attention_products(module: DualAttentionModule, sizes: Sizes) -> list[Product]:
    """The 1x1 convolutions of every cell, and the projections of every actor."""
    actors = sizes.num_clips * sizes.actors
    products = [(torch.randn(actors, sizes.inner), module.reduce.weight.detach().t())]
    for network in (module.attention.semantic, module.attention.identity):
        for layer in (network[0], network[2]):
            weight = layer.weight.detach().flatten(1).t()
            products.append((torch.randn(actors * sizes.grid**2, len(weight)), weight))
    for projection in module.projections.values():
        weight = projection.weight.detach().t()
        products.append((torch.randn(actors, len(weight)), weight))
    return products
