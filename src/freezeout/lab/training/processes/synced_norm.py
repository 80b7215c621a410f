r"""BatchNorm over the batch of all processes, on a CPU.

`torch.nn.SyncBatchNorm` does that on GPUs only. Every process finds mean and variance of its own
part; they are put together by

$$\mu = \sum_r \frac{n_r}{n}\mu_r, \qquad
  \sigma^2 = \sum_r \frac{n_r}{n}\bigl(\sigma_r^2 + (\mu_r - \mu)^2\bigr),$$

in the order of ranks and in double precision, so that all processes get the same bits. The backward
pass does the same for the two sums that it needs. Parts may be of different size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["local_norms", "other_buffers", "synchronise"]


def synchronise(model: nn.Module) -> None:
    """Make every BatchNorm of a model use the batch of all processes while it trains.

    Modules keep their identity, weights, buffers, hooks and the names in ``state_dict()``; only
    their class changes, to one that inherits from what it was. In inference mode, as when frozen,
    they talk to nobody. Custom classes stay as they are; see `local_norms`.

    Args:
        model: On its device; the default process group must serve it.
    """
    for module in model.modules():
        if type(module) in _SYNCED:
            on_gpu = any(b.is_cuda for b in module.buffers()) or any(
                p.is_cuda for p in module.parameters()
            )
            module.__class__ = nn.SyncBatchNorm if on_gpu else _SYNCED[type(module)]
            if on_gpu:
                synced: Any = module
                synced.process_group = None


def local_norms(model: nn.Module) -> list[str]:
    """Return the classes of a model's BatchNorms that `synchronise` does not know."""
    known = (*_SYNCED, *_SYNCED.values(), nn.SyncBatchNorm)
    return sorted(
        {
            type(module).__name__
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in known
        }
    )


def other_buffers(model: nn.Module) -> list[torch.Tensor]:
    """Return the buffers that may differ between processes: all but those of synced norms."""
    known = (*_SYNCED.values(), nn.SyncBatchNorm)
    return [
        buffer
        for module in model.modules()
        if type(module) not in known
        for buffer in module._buffers.values()
        if buffer is not None
    ]


class _Synced(nn.modules.batchnorm._BatchNorm):
    """What the synchronised classes share; comes first among their bases."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise by the statistics of all processes in training mode."""
        if not self.training:
            return super().forward(input)
        check: Any = self._check_input_dim  # carries no types
        check(input)
        with torch.no_grad():
            mean, var, count = _global_statistics(input.detach())
            if count < 2:
                raise ValueError(
                    "Expected more than 1 value per channel when training, got 1 in all processes."
                )
            self._remember(mean, var * (count / (count - 1)))
        kind = torch.promote_types(input.dtype, torch.float32)
        weight = self.weight if self.weight is not None else torch.ones_like(mean, dtype=kind)
        normalise: Any = _Normalise.apply
        output: torch.Tensor = normalise(
            input, weight, self.bias, mean.to(kind), var.to(kind), count, self.eps
        )
        return output

    def _remember(self, mean: torch.Tensor, var: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        factor = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1.0 / float(self.num_batches_tracked)
        factor = 0.0 if factor is None else factor
        self.running_mean.mul_(1 - factor).add_(mean.to(self.running_mean.dtype), alpha=factor)
        self.running_var.mul_(1 - factor).add_(var.to(self.running_var.dtype), alpha=factor)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over all processes."""


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over all processes."""


class SyncedBatchNorm3d(_Synced, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over all processes."""


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
    nn.BatchNorm3d: SyncedBatchNorm3d,
}


class _Normalise(torch.autograd.Function):
    r"""$(x - \mu)/\sqrt{\sigma^2 + \epsilon} \cdot w + b$, where the statistics depend on x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        mean: torch.Tensor,
        var: torch.Tensor,
        count: float,
        eps: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps = count, eps
        return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # As if the statistics were constants; that also gives the sums of dy and of dy * x_hat.
        direct, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            *(gradients[0], x, weight, mean, var, None, None, False, ctx.eps),
            [True, True, True],
        )
        own = by_weight, by_bias if ctx.needs_input_grad[2] else None, None, None, None, None
        if not ctx.needs_input_grad[0]:  # in no process, for all have the same network
            return None, *own
        sums = _all_sum(torch.stack((by_weight, by_bias))) / ctx.count
        # What flows through the statistics: w / sigma * (sum(dy) + x_hat * sum(dy * x_hat)) / n.
        scale = weight * torch.rsqrt(var + ctx.eps)
        through = torch.batch_norm(
            x, scale * sums[0], scale * sums[1], mean, var, False, 0.0, ctx.eps, False
        )
        return direct - through, *own


def _global_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return mean, biased variance (float64) and count per channel, over all processes."""
    channels, kind = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    none = torch.zeros(2, channels, dtype=kind)  # says in which precision they are wanted
    mean, var = torch.ops.aten.batch_norm_update_stats(x, none[0], none[1], 0.0)
    count = torch.tensor([x.numel() // channels], dtype=torch.float64)
    rows = _gathered(torch.cat((count, mean.double(), var.double())))
    total = torch.zeros(channels, dtype=torch.float64)
    n = 0.0
    for row in rows:
        n += float(row[0])
        total += row[0] * row[1 : channels + 1]
    centre = total / n
    spread = torch.zeros(channels, dtype=torch.float64)
    for row in rows:
        spread += row[0] * (row[channels + 1 :] + (row[1 : channels + 1] - centre) ** 2)
    return centre, spread / n, n


def _all_sum(values: torch.Tensor) -> torch.Tensor:
    rows = _gathered(values.double())
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total.to(values.dtype)


def _gathered(values: torch.Tensor) -> list[torch.Tensor]:
    rows = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, values.contiguous())
    return rows
