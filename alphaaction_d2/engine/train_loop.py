"""What happens in one training step."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import reduce

import torch
from detectron2.config import CfgNode, configurable
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.randomness import derived_seed, seed_everything
from ..data.train_loader import TrainLoader
from ..memory.pool import MemoryPool
from ..structures import Losses, precision
from .distributed.exchange import gather_numbers


@dataclass(frozen=True)
class TrainStep:
    """What hooks may know of the step that just ended."""

    batch: list[dict]  # the inputs of the model on this worker
    loss: float  # total loss, averaged over workers: the loss of the whole batch


class ActionTrainLoop(SimpleTrainer):
    """One step: read the memory, forward, backward, optimise.

    What is random in a step depends on the loader's seed, the step and the worker only, and what a
    step starts from is in :meth:`state_dict` and the pool: a resumed run repeats it exactly.
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        data_loader: TrainLoader,
        optimizer: torch.optim.Optimizer,
        pool: MemoryPool | None,
        *,
        parts: int = 1,
        amp_dtype: torch.dtype | None = None,
        device_type: str = "cpu",
    ) -> None:
        """Args:
        model: an `ActionRCNN`, wrapped in DistributedDataParallel when there are several
            workers.
        parts: a step's clips go through the model in this many parts.
        amp_dtype: of mixed precision; None computes in float32. float16 scales the loss.
        device_type: "cpu" or "cuda", where the model is.
        """
        super().__init__(model, data_loader, optimizer)
        share = data_loader.batch_size // data_loader.world_size
        if parts < 1 or share % parts:
            raise ValueError(
                f"SOLVER.ACCUMULATION_STEPS {parts} does not divide the {share} clips of a process"
            )
        self.pool = pool
        self.parts = parts
        self.amp_dtype, self.device_type = amp_dtype, device_type
        self.scaler = torch.amp.GradScaler(device_type, enabled=amp_dtype == torch.float16)
        self.last_step: TrainStep | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.SOLVER
        amp_dtype = precision(node.AMP.DTYPE, "SOLVER.AMP.DTYPE", ("bfloat16", "float16"))
        return {
            "parts": node.ACCUMULATION_STEPS,
            "amp_dtype": amp_dtype if node.AMP.ENABLED else None,
            "device_type": torch.device(cfg.MODEL.DEVICE).type,
        }

    def run_step(self) -> None:
        """See the class; raises FloatingPointError, before anything changes, for a bad loss."""
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        seed_everything(derived_seed(self.data_loader.seed, self.iter, comm.get_rank()))
        if self.pool is not None:
            # Here, not in the loader: clips that were loaded ahead see the newest state.
            self.pool.attach(batch, training=True)
        self.optimizer.zero_grad()
        losses = self._forward_backward(batch)
        self.after_backward()
        self.scaler.unscale_(self.optimizer)
        gradient = float(gradient_norm(self.model))
        loss = self._check(losses, gradient, batch)
        self._write_metrics(losses, data_time)
        get_event_storage().put_scalar("gradient_norm", gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.last_step = TrainStep(batch, loss)

    def _forward_backward(self, batch: list[dict]) -> dict[str, Tensor]:
        """Add up the gradients of the whole batch, part by part; return its losses, detached."""
        size = len(batch) // self.parts
        parts = [batch[i * size : (i + 1) * size] for i in range(self.parts)]
        shares = [1.0]
        if self.parts > 1:
            persons = [float(sum(len(x["instances"]) for x in part)) for part in parts]
            shares = shares_of_parts(gather_numbers(persons))
        sums: dict[str, Tensor] = {}
        for i, (part, share) in enumerate(zip(parts, shares)):
            with self._synchronised(last=i == len(parts) - 1):
                with torch.autocast(
                    self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None
                ):
                    losses = over_all_workers(self.model(part))
                self.scaler.scale(share * reduce(torch.add, losses.values())).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + share * value.detach()
        return sums

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager:
        """Let workers average their gradients once, with the last part."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _check(self, losses: dict[str, Tensor], gradient: float, batch: list[dict]) -> float:
        """Average the loss over workers, or raise the same FloatingPointError in all of them.

        A gradient that is not finite is normal for a loss scaler, which leaves the step out.
        """
        loss = float(sum(losses.values()))
        gathered = gather_numbers([loss, 0.0 if self.scaler.is_enabled() else gradient])
        if not gathered.isfinite().all():
            bad = not gathered[comm.get_rank()].isfinite().all()
            mine = explain_bad_step(self.iter, losses, gradient, batch) if bad else None
            raise FloatingPointError("; ".join(text for text in comm.all_gather(mine) if text))
        return float(gathered[:, 0].mean())

    def state_dict(self) -> dict:
        """Give everything but the model and the pool that the next step depends on."""
        state = super().state_dict()
        state["data_loader"] = self.data_loader.state_dict()
        state["grad_scaler"] = self.scaler.state_dict()
        state["err"] = None if self.pool is None else self.pool.err
        return state

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.data_loader.load_state_dict(state["data_loader"])
        self.scaler.load_state_dict(state["grad_scaler"])
        if self.pool is not None and state["err"] is not None:
            self.pool.err = state["err"]


def over_all_workers(losses: Losses) -> dict[str, Tensor]:
    """Scale the losses of this worker's clips so that their average over workers is the mean over
    the clips of all; all workers call this together."""
    if comm.get_world_size() == 1:
        return losses
    counts = gather_numbers([losses.counts[name] for name in losses])
    factors = factors_of_workers(counts)[comm.get_rank()].tolist()
    return {name: loss * factor for (name, loss), factor in zip(losses.items(), factors)}


def factors_of_workers(counts: Tensor) -> Tensor:
    """Compute the factors (W, L) that turn each worker's mean into its part of the mean over all.

    Workers average their gradients, so each divides its sum by the *average* number of things, as
    detectron2's heads do: everybody then counts alike, however persons are spread over workers.
    With less than one a worker the sums would be blown up, so the least divisor is 1. `counts` are
    (W, L): what each of L losses is a mean over on each of W workers.
    """
    return counts / counts.mean(dim=0).clamp(min=1)


def shares_of_parts(persons: Tensor) -> list[float]:
    """Weigh the losses of the P parts so that they add up to the loss of the whole batch, from the
    numbers of persons (W, P) on W workers.

    The loss of a part is a sum over persons divided by their number, averaged over workers and at
    least 1 (see :func:`factors_of_workers`); the sum of two such means needs the persons as
    weights.
    """
    means = persons.mean(dim=0)
    return (means.clamp(min=1) / means.sum().clamp(min=1)).tolist()


def gradient_norm(model: nn.Module) -> Tensor:
    """Compute the Euclidean norm of all gradients together; not finite when one of them is not."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


def explain_bad_step(
    iteration: int, losses: dict[str, Tensor], gradient: float, batch: list[dict]
) -> str:
    """Say in one line why a step must not be taken."""
    values = {name: float(value) for name, value in losses.items()}
    clips = ", ".join(f"{x['video_id']} at {x['timestamp']} s" for x in batch)
    what = "Gradient" if torch.tensor(list(values.values())).isfinite().all() else "Loss"
    return (
        f"{what} is not finite at iteration {iteration}: {values}, gradient norm {gradient}; "
        f"clips: {clips}; nothing was written. Lower SOLVER.BASE_LR or lengthen its warm-up, and "
        "continue with --resume"
    )
