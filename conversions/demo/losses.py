"""What the training makes small. Knows unit vectors and what fits what; neither models nor emoji."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(scores: Tensor, correct: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of score rows (n, m) against evenly shared correct columns, bool (n, m)."""
    target = correct.float() / correct.sum(dim=1, keepdim=True)
    return F.cross_entropy(scores, target, label_smoothing=smoothing)


def loss_of(
    images: Tensor, texts: Tensor, proxies: Tensor, scale: Tensor, fits: Tensor, own: Tensor, smoothing: float
) -> Tensor:
    """The training loss.

    `images` (2 n, d): two views of each of n emoji; `texts` (l n, d): a phrase of each in l languages; `proxies`
    (emoji, d); all unit length. `fits`, bool (l n, emoji): what each phrase may mean; `own`, int64 (n,): the emoji.
    """
    first, second = images.chunk(2)
    itself = torch.eye(len(own), dtype=torch.bool)
    meant = fits[:, own]
    both = torch.cat([meant, meant], dim=1)
    to_images = contrast(scale * texts @ images.T, both)
    to_texts = contrast(scale * images @ texts.T, both.T)
    between = contrast(scale * first @ second.T, itself) + contrast(scale * second @ first.T, itself)
    named = F.cross_entropy(scale * images @ proxies.T, own.repeat(2), label_smoothing=smoothing)
    told = contrast(scale * texts @ proxies.T, fits, smoothing)
    return (to_images + to_texts) / 2 + between / 2 + named + told
