"""Muon for what torch.optim.Muon does not take, or only slowly: stacks of matrices, sharded ones, many small ones."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from modules.across import full, is_sharded

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the Newton-Schulz iteration: Jordan et al. 2024
ITERATIONS = 5


class StackedMuon(torch.optim.Optimizer):
    """Muon on each matrix of a stack (..., m, n), such as the experts of a layer; equal to torch.optim.Muon.

    Jordan et al. 2024, with steps scaled to AdamW's size: arXiv:2502.16982. Orthogonalises the matrices as a batch.
    """

    def __init__(self, params, *, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = of_whole_matrices(p.grad.lerp(mean, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape[-2:]) ** 0.5)


def of_whole_matrices(update: Tensor) -> Tensor:
    """`orthogonalised`, also of what lies in parts in several processes, by rows or by the matrices of a stack.

    A matrix is gathered, and each process keeps its own part of the result; of a stack each has whole matrices.
    """
    if not is_sharded(update):
        return orthogonalised(update)
    from torch.distributed.tensor import DTensor, distribute_tensor

    if update.dim() > 2:
        return DTensor.from_local(orthogonalised(update.to_local()), update.device_mesh, update.placements,
                                  shape=update.shape, stride=update.stride())
    return distribute_tensor(orthogonalised(full(update)), update.device_mesh, update.placements, src_data_rank=None)


def orthogonalised(matrices: Tensor, *, eps: float = 1e-7, iterations: int = ITERATIONS) -> Tensor:
    """Bring all singular values of matrices near 1, by Newton-Schulz in bfloat16. Shape: (..., m, n) -> (..., m, n)."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    x = x.flatten(0, -3) if x.dim() > 3 else x  # (m, n) or (k, m, n)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(iterations):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrices.shape)


# ---- many small matrices ----

SMALL, MOST = 256, 2**20  # below this shorter side matrices are a batch, of so many numbers at most


class BatchedMuon(torch.optim.Muon):
    """torch.optim.Muon, with steps of AdamW's size, that orthogonalises small matrices of one shape as a batch.

    Its state is that of torch.optim.Muon.
    """

    def __init__(self, params, *, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for batch in batches(p for p in group["params"] if p.grad is not None):
                self.take(group, batch)

    def take(self, group: dict[str, Any], batch: list[Tensor]) -> None:
        """The step of matrices of one shape."""
        updates = []
        for p in batch:
            mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
            mean.lerp_(p.grad, 1 - group["momentum"])
            updates.append(p.grad.lerp(mean, group["momentum"]))
        wanted = torch.stack(updates) if len(batch) > 1 else updates[0]
        found = orthogonalised(wanted, eps=group["eps"], iterations=group["ns_steps"])
        for p, update in zip(batch, found if len(batch) > 1 else [found], strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


def batches(matrices: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Small matrices in batches of one shape, in the order in which they come; of large ones each alone."""
    alike: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        if min(matrix.shape) >= SMALL:
            yield [matrix]
        else:
            alike.setdefault(tuple(matrix.shape), []).append(matrix)
    for (rows, columns), found in alike.items():
        size = max(1, MOST // (rows * columns))
        yield from (found[first : first + size] for first in range(0, len(found), size))
