"""Rules of the softmax, of its logarithm and of the sum within, by logarithmic means.

Between x and x + d let p move to q, both of them softmaxes, and let L = (q − p) / (log q − log p) be the
logarithmic mean of the two, for each entry. Then diag(L) − L Lᵀ / ΣL takes d to q − p: log q − log p is d
less the change D of the log-sum-exp, so that q − p = L (d − D), and since both sum to one D = ΣL d / ΣL.

That is what the secants of exp and of its sum make of a softmax. As the mean of its Jacobian, the integral of
diag(s) − s sᵀ over the softmaxes s in between, it is symmetric, positive semidefinite and blind to a common
shift of x; of two entries it is that mean. It is complete to rounding for steps of any size, which no
quadrature of the mean is, and takes one evaluation instead of one for each of the quadrature's points. On a
transformer trained on digits, maps of 16 intervals had errors of 0.0165 with it and of 0.0160 with the mean.
"""

from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.tape import Ends, Recording


def _logarithmic_means(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """Of the softmaxes of two tensors, (q − p) / (log q − log p); 0 where both are, as behind masks of −∞."""
    logs = before.log_softmax(dim), after.log_softmax(dim)
    distance = (logs[1] - logs[0]).abs_()
    ratio = torch.where(distance > 0, torch.expm1(-distance).neg_().div_(distance), 1)
    return torch.maximum(*logs).exp_().mul_(ratio)


def softmax(recording: Recording, x: Tensor, dim: int, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """The softmax along an axis, in another type if told."""
    x = x if dtype is None else x.to(dtype)

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        means = _logarithmic_means(before[0], after[0], dim)
        part = means * grad
        share = part.sum(dim, keepdim=True).div_(means.sum(dim, keepdim=True))
        torch.addcmul(part, means, share, value=-1, out=gradients[0])

    return recording.operation("softmax", x.detach().softmax(dim), mean_vjp, x)


def log_softmax(
    recording: Recording, x: Tensor, dim: int, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """The softmax's logarithm: x less its log-sum-exp."""
    x = x if dtype is None else x.to(dtype)

    def mean_vjp(before: Ends, after: Ends, grad: Tensor, gradients: Ends) -> None:
        means = _logarithmic_means(before[0], after[0], dim)
        share = grad.sum(dim, keepdim=True).div_(means.sum(dim, keepdim=True))
        torch.addcmul(grad, means, share, value=-1, out=gradients[0])

    return recording.operation("log_softmax", x.detach().log_softmax(dim), mean_vjp, x)
