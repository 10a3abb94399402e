"""The rule of fused attention: the products and the softmax that it is made of."""

import math
from typing import Any

import torch
from torch import Tensor

from riemannopt_dist.rescale.products import matmul
from riemannopt_dist.rescale.softmax import softmax
from riemannopt_dist.rescale.tape import Recording


def attention(
    recording: Recording,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """softmax(scale · q kᵀ + mask) v, as `scaled_dot_product_attention` documents it.

    Its options besides are `scale`, 1/√width by default, and `enable_gqa`, several heads of queries for one.
    A query that every key is masked for gets zeros, as there.
    """
    if dropout_p > 0:
        raise ValueError("model: its operation scaled_dot_product_attention drops out: set it to evaluation")
    if is_causal and attn_mask is not None:
        raise ValueError("model: its operation scaled_dot_product_attention is causal and has a mask besides")
    if options.get("enable_gqa"):
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scale = options.get("scale")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = matmul(recording, query * scale, key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        return matmul(recording, softmax(recording, scores, -1), value)
    added = attn_mask.dtype != torch.bool
    outside = attn_mask == -torch.inf if added else ~attn_mask
    nowhere = outside.all(-1, keepdim=True)
    scores = scores + attn_mask if added else scores
    scores = torch.where(outside, torch.where(nowhere, 0.0, -torch.inf).to(scores), scores)
    weights = softmax(recording, scores, -1).masked_fill(nowhere, 0)
    return matmul(recording, weights, value)
