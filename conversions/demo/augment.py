"""Turns drawings into batches that look photographed: other backgrounds, scale, turn, light, blur, JPEG.

Works on whole batches with torch, at the training size (112 px: half of the model's 224, see model.py).
Every random number comes from the generator that is passed in.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

SIZE = 112
PART = 64


def augment(rgba: Tensor, generator: Generator) -> Tensor:
    """Drawings uint8 (n, 4, 128, 128) to images float32 (n, 3, 112, 112) in 0..1."""
    # In parts that fit the processor's cache: four times as fast as the whole batch at once.
    return torch.cat([_augment_part(part, generator) for part in torch.split(rgba, PART)])


def _augment_part(rgba: Tensor, generator: Generator) -> Tensor:
    count = len(rgba)
    drawing = rgba.float().div_(255)
    drawing[:, :3] *= drawing[:, 3:]
    moved = _place(drawing, generator)
    _jitter(moved[:, :3], moved[:, 3:], generator)
    _ink(moved, generator)
    _outline(moved, generator)
    image = _backgrounds(moved, generator).mul_(1 - moved[:, 3:]).add_(moved[:, :3])
    image = _light(image, generator)
    image = _blur(image, generator)
    noisy = torch.nonzero(torch.rand(count, generator=generator) < 0.2).flatten()
    grain = torch.randn((len(noisy), 3, SIZE, SIZE), generator=generator)
    image[noisy] += grain * _uniform(len(noisy), 0.0, 0.06, generator)
    return _jpeg(image.clamp_(0, 1), 0.12, generator)


def on_white(rgba: Tensor) -> Tensor:
    """Drawings uint8 (n, 4, side, side) on a white page, uint8 (n, 3, side, side)."""
    alpha = rgba[:, 3:].float() / 255
    return (rgba[:, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)


def _uniform(count: int, low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    values = torch.rand((count, *(shape or (1, 1, 1))), generator=generator)
    return values * (high - low) + low


def _chance(count: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand((count, 1, 1, 1), generator=generator) < probability).float()


def _jitter(rgb: Tensor, alpha: Tensor, generator: Generator) -> None:
    """Shifts hue, saturation and brightness of premultiplied `rgb` in place: vendors' palettes differ."""
    count = len(rgb)
    saturation = _uniform(count, 0.5, 1.4, generator) * (1 - _chance(count, 0.04, generator))
    gain = _uniform(count, 0.8, 1.15, generator).view(count)
    # A turn about the grey axis is a hue shift; Rodrigues' formula for the axis (1, 1, 1).
    angle = _uniform(count, -0.18, 0.18, generator).view(count)
    cos, sin = torch.cos(angle), torch.sin(angle) / 3**0.5
    same, ahead, behind = (1 + 2 * cos) / 3, (1 - cos) / 3 - sin, (1 - cos) / 3 + sin
    rows = [[same, ahead, behind], [behind, same, ahead], [ahead, behind, same]]
    turn = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)
    mix = saturation.view(count, 1, 1) * turn + (1 - saturation.view(count, 1, 1)) / 3
    turned = torch.bmm(mix * gain[:, None, None], rgb.reshape(count, 3, -1)).view(rgb.shape)
    rgb.copy_(torch.minimum(turned.clamp_(min=0), alpha))


def _place(premultiplied: Tensor, generator: Generator) -> Tensor:
    """Scales, turns, shears and moves; samples at the training size."""
    count = len(premultiplied)
    span = torch.rand(count, generator=generator)
    scale = 1 / (0.55 + 0.55 * span.sqrt())
    angle = (torch.randn(count, generator=generator) * 0.12).clamp_(-0.35, 0.35)
    stretch = 1 + (torch.rand(count, generator=generator) - 0.5) * 0.25
    shear = (torch.rand(count, generator=generator) - 0.5) * 0.2
    room = (scale - 1).clamp(min=0) + 0.08
    shift = (torch.rand((count, 2), generator=generator) * 2 - 1) * room[:, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([scale * stretch * cos, scale * (shear - sin), shift[:, 0]], dim=-1),
            torch.stack([scale * sin, scale / stretch * cos, shift[:, 1]], dim=-1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 4, SIZE, SIZE], align_corners=False)
    return F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _ink(premultiplied: Tensor, generator: Generator) -> None:
    """Redraws some drawings in place as a comic would: few flat colours, dark lines where they meet."""
    chosen = torch.nonzero(torch.rand(len(premultiplied), generator=generator) < 0.25).flatten()
    drawing = premultiplied[chosen]
    alpha = drawing[:, 3:]
    levels = _uniform(len(chosen), 2.5, 7.0, generator)
    soft = F.avg_pool2d(drawing[:, :3], 3, stride=1, padding=1)
    flat = torch.minimum((soft * levels).round_() / levels, alpha)
    edges = (F.max_pool2d(flat, 3, stride=1, padding=1) + F.max_pool2d(-flat, 3, stride=1, padding=1)).amax(1, True)
    faintest = _uniform(len(chosen), 0.1, 0.35, generator)
    premultiplied[chosen, :3] = flat * (1 - ((edges - faintest) * 8).clamp_(0, 1))


def _outline(premultiplied: Tensor, generator: Generator) -> None:
    """Gives some drawings a rim in place, dark as in a comic or white as on a sticker."""
    chosen = torch.nonzero(torch.rand(len(premultiplied), generator=generator) < 0.2).flatten()
    dark = _chance(len(chosen), 0.7, generator)
    for width in (3, 5):
        part = chosen[width // 2 - 1 :: 2]
        if len(part):
            alpha = premultiplied[part, 3:]
            rim = (F.max_pool2d(alpha, width, stride=1, padding=width // 2) - alpha).clamp_(0, 1)
            colour = (1 - dark[width // 2 - 1 :: 2]).expand(-1, 3, -1, -1)
            premultiplied[part, :3] += colour * rim
            premultiplied[part, 3:] += rim


def _backgrounds(moved: Tensor, generator: Generator) -> Tensor:
    """One background for each image: white, a plain page, a colour, a gradient, clouds, or blurred things."""
    count = len(moved)
    back = torch.ones((count, 3, SIZE, SIZE))
    shares = torch.tensor([0.40, 0.12, 0.12, 0.12, 0.14, 0.10])
    kinds = torch.multinomial(shares, count, replacement=True, generator=generator)
    colours = torch.rand((count, 3, 2, 2), generator=generator)
    # Most real surfaces are rather grey.
    vivid = _uniform(count, 0.1, 1.0, generator)
    colours = colours * vivid + colours.mean(dim=1, keepdim=True) * (1 - vivid)
    _, page, plain, gradient, clouds, things = (torch.nonzero(kinds == kind).flatten() for kind in range(6))
    back[page] = _uniform(len(page), 0.8, 1.0, generator).expand(-1, 3, SIZE, SIZE)
    back[plain] = colours[plain, :, :1, :1].expand(-1, -1, SIZE, SIZE)
    back[gradient] = _grown(colours[gradient])
    cloudy = colours[clouds, :, :1, :1].expand(-1, -1, SIZE, SIZE).clone()
    for cells, weight in ((4, 0.6), (11, 0.4), (28, 0.25)):
        noise = torch.rand((len(clouds), 3, cells, cells), generator=generator) - 0.5
        cloudy += weight * _grown(noise)
    back[clouds] = cloudy.clamp_(0, 1)
    others = torch.randint(count, (len(things),), generator=generator)
    small = F.adaptive_avg_pool2d(moved[others, :3], 14)
    back[things] = _grown(small * 0.8 + 0.2 * colours[things, :, :1, :1])
    return back


def _grown(image: Tensor) -> Tensor:
    return F.interpolate(image, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def _light(image: Tensor, generator: Generator) -> Tensor:
    """Exposure, contrast and a colour cast of the whole image, and a shadow falling across it."""
    count = len(image)
    on = _chance(count, 0.5, generator)
    gain = 1 + on * (_uniform(count, -0.25, 0.2, generator) + _uniform(count, -0.08, 0.08, generator, 3, 1, 1))
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    contrast = 1 + on * _uniform(count, -0.3, 0.2, generator)
    shade = _chance(count, 0.2, generator) * _uniform(count, 0.1, 0.5, generator)
    ramp = _grown(torch.rand((count, 1, 2, 2), generator=generator))
    return image.sub_(middle).mul_(contrast).add_(middle).mul_(gain * (1 - shade * ramp))


def _blur(image: Tensor, generator: Generator) -> Tensor:
    """Softens some images: half by a Gaussian, half by a loss of resolution."""
    order = torch.randperm(len(image), generator=generator)
    part = max(1, len(image) // 16)
    radius = torch.arange(-4, 5, dtype=torch.float32)
    for place, sigma in enumerate((0.6, 1.0, 1.6)):
        rows = order[place * part : (place + 1) * part]
        kernel = torch.exp(-(radius**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
        soft = F.conv2d(image[rows], kernel, padding=(0, 4), groups=3)
        image[rows] = F.conv2d(soft, kernel.transpose(2, 3), padding=(4, 0), groups=3)
    for place, side in enumerate((72, 48, 32)):
        rows = order[(place + 3) * part : (place + 4) * part]
        image[rows] = _grown(F.adaptive_avg_pool2d(image[rows], side))
    return image


def _jpeg(image: Tensor, share: float, generator: Generator) -> Tensor:
    """Sends a share of the images through real JPEG at quality 15 to 80."""
    rows = torch.nonzero(torch.rand(len(image), generator=generator) < share).flatten().tolist()
    qualities = torch.randint(15, 81, (len(rows),), generator=generator).tolist()
    for row, quality in zip(rows, qualities, strict=True):
        pixels = (image[row] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(buffer)).astype(np.float32) / 255
        image[row] = torch.from_numpy(decoded).permute(2, 0, 1)
    return image
