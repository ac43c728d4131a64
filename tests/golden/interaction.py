"""Cases of interaction blocks and of aggregation structures."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from alphaaction_d2.checkpoint.sources.alphaction import aggregation_name
from alphaaction_d2.checkpoint.sources.source import as_linear
from alphaaction_d2.modeling.interaction import (
    DenseSerialInteraction,
    ParallelInteraction,
    SerialInteraction,
)
from alphaaction_d2.modeling.interaction.aia import InteractionAggregation
from alphaaction_d2.modeling.interaction.attention import InteractionBlock
from alphaaction_d2.structures import ClipFeatures, MemoryWindow

from .case import GoldenCase

UNUSED_KEYS = (
    "no P-block comes first: the released person_key_dim_reduce has no effect, ours is absent"
)

STRUCTURES = {
    "serial": SerialInteraction,
    "dense": DenseSerialInteraction,
    "parallel": ParallelInteraction,
}


def parameter_gradients(module: nn.Module, names: list[str]) -> dict[str, Tensor | None]:
    """Gradients under the released names "param/...", in our shapes."""
    parameters = dict(module.named_parameters())
    ours = {f"param/{name}": parameters.get(aggregation_name(name)) for name in names}
    return {name: None if p is None else p.grad for name, p in ours.items()}


def reshape_gradients(case: GoldenCase) -> None:
    """The reference's gradients of parameters in our shapes."""
    for key in [key for key in case.arrays if key.startswith("grad/param/")]:
        case.arrays[key] = as_linear(case.raw(key)).numpy()


def our_weights(case: GoldenCase) -> dict[str, Tensor]:
    """The case's parameters under our names, in our shapes."""
    return {aggregation_name(name): as_linear(value) for name, value in case.params().items()}


def check_block(case: GoldenCase) -> None:
    """A single block, also over several places of a person and of the others."""
    config = case.config
    block = InteractionBlock(
        dim_query=config["dim_person"],
        dim_other=config["dim_other"],
        dim_inner=config["dim_inner"],
        dim_out=config["dim_out"],
        num_slots=max(config["temporal_position_length"], 0),
        layer_norm=config["layer_norm"],
        dropout=config["dropout"],
    ).train(config["mode"] == "train")
    weights = our_weights(case)
    block.load_state_dict(weights)
    person = case.raw("in/person").requires_grad_()  # n C t h w
    others = case.raw("in/others").requires_grad_()  # n J C t h w
    seen: list[Tensor] = []
    block.weights.register_forward_hook(lambda _, args, out: seen.append(out))
    places = person.flatten(2).transpose(1, 2)[:, None]  # n 1 K C
    keys = others.flatten(3).transpose(2, 3).flatten(1, 2)  # n JK C
    out = block(places, keys)[:, 0].transpose(1, 2).unflatten(2, person.shape[2:])
    case.compare("out/out", out.reshape(case["out/out"].shape))
    case.compare("mid/attention", seen[0])
    (out * case.raw("in/grad_projection")).sum().backward()
    reshape_gradients(case)
    gradients = {"person": person.grad, "others": others.grad}
    gradients = {k: g.reshape(case[f"grad/{k}"].shape) for k, g in gradients.items()}
    case.compare_gradients({**gradients, **parameter_gradients(block, list(case.params()))})


def build_structure(case: GoldenCase, config: dict) -> tuple[InteractionAggregation, list[str]]:
    """The structure with the case's parameters, and the names of those that it has no use for."""
    blocks = config["I_BLOCK_LIST"]
    if config["STRUCTURE"] == "parallel":
        blocks = [kind for layer in blocks for kind in layer]
    module = STRUCTURES[config["STRUCTURE"]](
        dim_in=config["DIM_IN"],
        dim_inner=config["DIM_INNER"],
        dim_out=config["DIM_OUT"],
        blocks=tuple(blocks),
        num_slots=sum(config["LENGTH"]) + 1,
        layer_norm=config["LAYER_NORM"],
        temporal_position=config["TEMPORAL_POSITION"],
        dropout=config["DROPOUT"],
        attend_padding=True,
        max_persons=config["MAX_PERSON"],
        max_objects=config["MAX_OBJECT"],
    )
    keys = module.load_state_dict(our_weights(case), strict=False)
    for name in keys.missing_keys:
        case.fail(f"param/{name}", "is missing in the case")
    return module, keys.unexpected_keys


class Recorder:
    """Inputs and outputs of the modules that take part in a forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.inputs: dict[str, tuple] = {}
        self.outputs: dict[str, Tensor] = {}
        for name, child in module.named_modules():
            child.register_forward_hook(lambda _, args, out, name=name: self._keep(name, args, out))

    def _keep(self, name: str, args: tuple, out: Tensor) -> None:
        self.inputs[name], self.outputs[name] = args, out


def check_structure(case: GoldenCase) -> None:
    """A whole aggregation structure with everything it computes on the way."""
    config = case.config["ia_structure"]
    module, unused = build_structure(case, config)
    module.train(case.config["mode"] == "train")
    if unused:
        case.note(UNUSED_KEYS)
    recorder = Recorder(module)
    slots, per_slot = sum(config["LENGTH"]) + 1, config["MAX_PER_SEC"]
    flat_memory = case["in/memory"].requires_grad_()
    shape = (len(flat_memory), slots, per_slot)
    window = MemoryWindow(
        features=flat_memory.unflatten(1, (slots, per_slot)),
        valid=torch.ones(shape, dtype=torch.bool),
        person_ids=torch.zeros(shape, dtype=torch.int64),
        boxes=torch.zeros(*shape, 4),
        weights=torch.ones(shape[:2]),
        fresh_centre=torch.ones(shape[0], dtype=torch.bool),
        offsets=torch.arange(slots) - config["LENGTH"][0],
    )
    counts = case.counts("in/persons_per_clip")
    person = case["in/person"].requires_grad_()
    thing = case["in/object"].requires_grad_()
    persons = _instances(case, person, case["in/person_boxes"], counts)
    objects = _instances(case, thing, case["in/object_boxes"], case.counts("in/objects_per_clip"))
    out, _ = module(list(map(ClipFeatures, persons, objects)), window)
    case.compare("out/out", out)
    _compare_middle(case, recorder, counts, bool(unused))
    (out * case["in/grad_projection"]).sum().backward()
    reshape_gradients(case)
    inputs = {"person": person.grad, "object": thing.grad, "memory": flat_memory.grad}
    inputs = {k: x for k, x in inputs.items() if f"grad/{k}" in case}
    case.compare_gradients({**inputs, **parameter_gradients(module, list(case.params()))})


def _instances(
    case: GoldenCase, features: Tensor, boxes: Tensor, counts: list[int]
) -> list[Instances]:
    return [
        Instances(case.image_size, roi_features=rows, proposal_boxes=Boxes(where))
        for rows, where in zip(features.split(counts), boxes.split(counts))
    ]


def _compare_middle(
    case: GoldenCase, recorder: Recorder, counts: list[int], unused_keys: bool
) -> None:
    """What flows between the layers: ours has one row a clip, the reference one a person."""
    clip_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    row_of = torch.cat([torch.arange(n) for n in counts])
    for key in [key for key in case.arrays if key.startswith("mid/")]:
        name, _, what = key[len("mid/") :].partition(".")
        if name == "person_key_dim_reduce" and unused_keys:
            case.skip(key, "a layer without effect")
        elif name.endswith("dim_reduce"):
            value = recorder.outputs[aggregation_name(f"{name}.weight").rpartition(".0.")[0]]
            case.compare(key, value if value.dim() == 2 else value[clip_of].flatten(0, 1))
        elif what == "others":
            case.compare(key, recorder.inputs[f"blocks.{name}"][1][clip_of])
        else:
            block = f"blocks.{name}"
            value = recorder.inputs[block][0] if what == "query" else recorder.outputs[block]
            case.compare(key, value[clip_of, row_of])
