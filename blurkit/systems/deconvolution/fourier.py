"""Convolution as a product of spectra: transfer functions, gradients, and periodic borders.

Images are batches (..., H, W). A kernel's origin is its middle pixel, and `y = x * k` is true
convolution. FFTs assume that images are periodic, so photos get a frame in which opposite borders
meet.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

rfft2 = torch.fft.rfft2
irfft2 = torch.fft.irfft2

SMOOTH = 2**20 * 3**12 * 5**8
"""What divides it has no prime factor above 5: FFTs of such lengths are fast."""

LEAST_DAMPING, DAMPING = 0.05, 127.5
"""Damping of the inverted residual: at least so much, and so much per deviation of the noise."""

ROUNDS = 2
"""How often the residual is added: twice gains 0.3 dB with true kernels, and thrice 0.1 more, but
then less with wrong ones."""

UNLIT = 0.2
"""How much of a pixel's light may be that of lamps for any residual to count there."""

MIDDLE = 0.35
"""Standard deviation of what counts as the middle of a path, part of the path's."""

CERTAIN = 0.5
"""Part of a path's middle, along the path, that counts: specks at its ends move it."""

FAINT = 0.7
"""Standard deviation by which a faint path is smoothed before what is too faint is cut, pixels."""


def transfer_function(kernel: Tensor, height: int, width: int) -> Tensor:
    """Return the spectrum (..., height, width // 2 + 1) of kernels (..., h, w) up to this size."""
    h, w = kernel.shape[-2:]
    padded = F.pad(kernel, (0, width - w, 0, height - h))
    return rfft2(torch.roll(padded, (-(h // 2), -(w // 2)), (-2, -1)))


def centred(transfer: Tensor, kernel: Tensor, width: int) -> Tensor:
    """Return the spectrum of `transfer_function` with the kernel's centroid as its origin.

    It is exact for fractions of a pixel. `kernel` (..., h, w) has sum 1; `width` is the images'.
    """
    return with_origin(transfer, *centroid(kernel), width)


def with_origin(transfer: Tensor, down: Tensor, right: Tensor, width: int) -> Tensor:
    """Return spectra (..., H, width // 2 + 1) with an origin (...) that far down and right."""
    rates_down = torch.fft.fftfreq(transfer.shape[-2], device=transfer.device)[:, None]
    rates_right = torch.fft.rfftfreq(width, device=transfer.device)[None]
    down, right = (place[..., None, None] for place in (down, right))
    turn = 2 * math.pi * (rates_down * down + rates_right * right)
    return transfer * torch.polar(torch.ones_like(turn), turn)


def centred_transfer(kernel: Tensor, height: int, width: int) -> Tensor:
    """Return `transfer_function` with the kernel's centroid as its origin."""
    return centred(transfer_function(kernel, height, width), kernel, width)


def centroid(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far (...) down and right of its middle a kernel (..., h, w) of sum 1 is."""
    h, w = kernel.shape[-2:]
    rows = torch.arange(h, device=kernel.device) - h // 2
    columns = torch.arange(w, device=kernel.device) - w // 2
    return (kernel.sum(-1) * rows).sum(-1), (kernel.sum(-2) * columns).sum(-1)


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences to the right and the lower neighbour, periodic, shaped like `x`.

    Writing into slices takes half the time of `torch.roll`, but has no derivative.
    """
    across, down = torch.empty_like(x), torch.empty_like(x)
    torch.sub(x[..., 1:], x[..., :-1], out=across[..., :-1])
    torch.sub(x[..., :1], x[..., -1:], out=across[..., -1:])
    torch.sub(x[..., 1:, :], x[..., :-1, :], out=down[..., :-1, :])
    torch.sub(x[..., :1, :], x[..., -1:, :], out=down[..., -1:, :])
    return across, down


def divergence(across: Tensor, down: Tensor) -> Tensor:
    """Return the adjoint of `gradients`, applied to its two results."""
    result = -across
    result -= down
    result[..., 1:] += across[..., :-1]
    result[..., :1] += across[..., -1:]
    result[..., 1:, :] += down[..., :-1, :]
    result[..., :1, :] += down[..., -1:, :]
    return result


def gradient_power(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return |Dx|^2 + |Dy|^2, the power of `gradients`, (height, width // 2 + 1)."""
    down = torch.fft.fftfreq(height, device=device)[:, None]
    across = torch.fft.rfftfreq(width, device=device)[None]
    return 4 * torch.sin(math.pi * down) ** 2 + 4 * torch.sin(math.pi * across) ** 2


def around_origin(spectrum: Tensor, size: int, sides: tuple[int, int]) -> Tensor:
    """Return the values (..., size, size) around the origin of what has this spectrum."""
    moved = torch.roll(irfft2(spectrum, s=sides), (size // 2, size // 2), (-2, -1))
    return moved[..., :size, :size]


# ---- frames --------------------------------------------------------------------------------------


def fast_length(length: int) -> int:
    """Return the smallest even length, at least `length`, that FFTs process quickly."""
    length += length % 2
    while SMOOTH % length:
        length += 2
    return length


def framed(image: Tensor, margin: int) -> Tensor:
    """Return `image` (..., H, W) `widened` by at least `margin` pixels on each side.

    In this frame the picture fades into a smooth periodic one, so that deconvolution finds no edge
    where opposite borders meet.
    """
    result = widened(image, margin)
    sides = result.shape[-2], result.shape[-1]
    inside, smoothing = _frame(image.shape[-2], image.shape[-1], *sides, margin, image.device)
    for _ in range(3):
        smooth = irfft2(rfft2(result) * smoothing, s=sides)
        result = result * inside + smooth * (1 - inside)
    return result


def widened(image: Tensor, margin: int, mode: str = "replicate") -> Tensor:
    """Return (..., H', W'), `image` padded by at least `margin` pixels on each side.

    The sides of the result are fast for FFTs. `mode` is that of `F.pad`.
    """
    height, width = image.shape[-2:]
    sides = [fast_length(side + 2 * margin) for side in (height, width)]
    top, left = offsets(image, sides)
    pads = (left, sides[1] - width - left, top, sides[0] - height - top)
    wide = F.pad(image.reshape(-1, 1, height, width), pads, mode=mode)
    return wide.reshape(*image.shape[:-2], *sides)


def unframed(framed_image: Tensor, height: int, width: int) -> Tensor:
    """Return the picture (..., height, width) from the middle of what `widened` made of it."""
    sides = list(framed_image.shape[-2:])
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    return framed_image[..., top : top + height, left : left + width]


class FramedBlur:
    """The blur of kernels (N, h, w) in photos (height, width), and of what lies beyond them.

    Calls take and return what `wide` makes of photos (N, C, height, width).
    """

    def __init__(self, kernels: Tensor, height: int, width: int) -> None:
        self.sides, self.margin = (height, width), kernels.shape[-1] // 2 + 1
        self.seen = self.wide(kernels.new_ones(1, 1, height, width), "constant")
        self.transfer = centred_transfer(kernels, *self.seen.shape[-2:])[:, None]

    def wide(self, images: Tensor, mode: str = "replicate") -> Tensor:
        """Return images `widened` so that what enters at the borders has a place."""
        return widened(images, self.margin, mode)

    def inside(self, images: Tensor) -> Tensor:
        """Return the part of wide images that photos show."""
        return unframed(images, *self.sides)

    def __call__(self, images: Tensor) -> Tensor:
        """Return wide images under the blur."""
        return self.filtered(images, self.transfer)

    def back(self, images: Tensor) -> Tensor:
        """Return the adjoint of the blur of wide images: what pixels tell about those they show."""
        return self.filtered(images, self.transfer.conj())

    def filtered(self, images: Tensor, transfer: Tensor) -> Tensor:
        """Return wide images under a filter with this spectrum, such as `transfer`."""
        return irfft2(rfft2(images) * transfer, s=tuple(images.shape[-2:]))


def offsets(image: Tensor, sides: list[int]) -> tuple[int, int]:
    """Return (top, left) of `image` centred in a frame with these sides."""
    return (sides[0] - image.shape[-2]) // 2, (sides[1] - image.shape[-1]) // 2


@lru_cache(maxsize=32)
def _frame(
    height: int, width: int, rows: int, columns: int, margin: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the weights (rows, columns) of the picture in its frame, and a Gaussian's spectrum.

    They are cached, so they must not be inference tensors, which autograd rejects.
    """
    with torch.inference_mode(False):
        ramps = []
        for side, whole in ((height, rows), (width, columns)):
            place = torch.arange(whole, dtype=torch.float32) - (whole - side) // 2
            distance = torch.minimum(place + 0.5, side - 0.5 - place)
            ramps.append(0.5 * (1 + torch.erf(distance / (max(margin, 1) / 4 * math.sqrt(2)))))
        down = torch.fft.fftfreq(rows)[:, None]
        across = torch.fft.rfftfreq(columns)[None]
        gaussian = torch.exp(-2 * (math.pi * margin / 3) ** 2 * (down**2 + across**2))
        return (ramps[0][:, None] * ramps[1][None]).to(device), gaussian.to(device)


def with_residual(
    restored: Tensor,
    photos: Tensor,
    kernels: Tensor,
    gammas: Tensor,
    noise: Tensor,
    lit: Tensor | None = None,
) -> Tensor:
    """Return restored photos (N, 3, H, W) with the detail that they lack of the photos.

    What a photo shows beyond its blurred restoration is noise, and detail that was taken for noise.
    It is inverted as far as the kernel lets it through, and added: x + F^-1[K* (1 + e) / (|K|^2 +
    e) F(y - blur(x))], with a damping e that grows with the noise, and once more for what is left.
    Without blur, the result is the photo. At the borders a residual counts the less, the more of
    the kernel lies beyond them. `kernels` (N, h, w) have their centroid as origin and
    blur pixel values to the power of `gammas` (N,); `noise` (N,) is its standard deviation. Where
    photos are `lit` (N, 1, H, W) by lamps, no residual is looked at.
    """
    blur = FramedBlur(kernels, *photos.shape[-2:])
    exponents = gammas.view(-1, 1, 1, 1)
    damping = (DAMPING * noise).clamp_min(LEAST_DAMPING).view(-1, 1, 1, 1)
    transfer = blur.transfer
    inverse = transfer.conj() * ((1 + damping) / (transfer.abs().square() + damping))
    seen = (2 * blur.inside(blur(blur.seen)) - 1).clamp(0, 1)
    if lit is not None:
        seen = seen * (1 - lit / UNLIT).clamp(0, 1)
    for _ in range(ROUNDS):
        restored = restored.clamp(0, 1)  # what is beyond would stay, as no residual shows it
        again = blur.inside(blur(blur.wide(restored**exponents)))
        blurred = again.clamp(1e-6, 1) ** (1 / exponents)  # its slope is infinite at 0
        residual = blur.wide(seen * (photos - blurred), "constant")
        restored = restored + blur.inside(blur.filtered(residual, inverse))
    return restored


# ---- Batches of kernels --------------------------------------------------------------------------
# Operations on blur kernels alone: cleaning, centring, resizing, shape, and comparison.
#
# Kernels are batches (N, size, size) float32: odd size, values from 0, sum 1, origin in the middle.


def cleaned(kernels: Tensor, floor: float, part: float, resting: bool = False) -> Tensor:
    """Return kernels without specks, as an estimate needs after every step.

    Values below `floor` times the largest become 0, and so do connected parts with less than `part`
    of the sum. If the camera was also `resting`, the largest and the sum are those of `off_peak`,
    and what is compared with `floor` is smoothed. The result has sum 1 and its centroid at most
    half a pixel from the middle, unless centring moves a part of it over the border. One that
    becomes empty is replaced by no blur.
    """
    kernels = values = path = kernels.clamp_min(0)
    if resting:
        from scipy.ndimage import gaussian_filter  # slow to import, and most photos do without

        every = [k.cpu().numpy() for k in (kernels, off_peak(kernels))]
        soft = [gaussian_filter(k, (0, FAINT, FAINT)) for k in every]
        values, path = (torch.from_numpy(k).to(kernels) for k in soft)
    kept = kernels * (values >= floor * path.amax((-2, -1), keepdim=True))
    if part:
        labels = connected_parts(kept > 0).flatten(1)
        sums = kept.new_zeros(labels.shape[0], labels.shape[1] + 1)
        sums = sums.scatter_add(1, labels, kept.flatten(1))
        whole = (off_peak(kept) if resting else kept).sum((-2, -1))[:, None]
        kept = kept * (sums.gather(1, labels) >= part * whole).view_as(kept)
    dot = padded(kept.new_ones(1, 1), kept.shape[-1])
    kept = torch.where(kept.sum((-2, -1), keepdim=True) > 0, kept, dot)
    kept = recentred(kept)
    return kept / kept.sum((-2, -1), keepdim=True)


def connected_parts(mask: Tensor) -> Tensor:
    """Return a number for each connected part, diagonals included, of masks (N, h, w), 0 outside.

    The largest index of a part's pixels spreads over it, pixel by pixel.
    """
    numbers = torch.arange(1, mask[0].numel() + 1, device=mask.device).view(mask.shape[1:])
    labels = numbers * mask.float()
    while not torch.equal(labels, spread := F.max_pool2d(labels, 3, 1, 1) * mask):
        labels = spread
    return labels.long()


def off_peak(kernels: Tensor) -> Tensor:
    """Return kernels (N, h, w) without the largest value and what is next to it: where it moved."""
    flat = kernels.flatten(1)
    peak = torch.zeros_like(flat).scatter(1, flat.argmax(1, keepdim=True), 1).view_as(kernels)
    return kernels * (1 - F.max_pool2d(peak, 3, 1, 1))


def resized_kernels(kernels: Tensor, size: int) -> Tensor:
    """Return kernels (N, size, size) of the same blur in an image resized by the same factor."""
    grown = F.interpolate(kernels[:, None], (size, size), mode="bicubic")[:, 0].clamp_min(0)
    return grown / grown.sum((-2, -1), keepdim=True)


def kernels_at(kernels: Tensor, size: int) -> Tensor:
    """Return kernels (N, size, size) of the same blur at another scale, antialiased."""
    if size >= kernels.shape[-1]:
        return resized_kernels(kernels, size)
    smaller = F.interpolate(kernels[:, None], (size, size), mode="bilinear", antialias=True)[:, 0]
    return smaller / smaller.sum((-2, -1), keepdim=True)


def recentred(kernels: Tensor) -> Tensor:
    """Return kernels (N, s, s), moved so that their centroid is at most half a pixel off centre."""
    with torch.no_grad():
        values = kernels.clamp_min(0)
        values = values / values.sum((-2, -1), keepdim=True).clamp_min(1e-9)
        down, right = (place.round().long() for place in centroid(values))
    return moved(kernels, -down, -right)


def moved(kernels: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return kernels (N, s, s), each moved by its own whole pixels, (N,); what leaves is lost."""
    size = kernels.shape[-1]
    place = torch.arange(size, device=kernels.device)
    rows, columns = (place - by[:, None] for by in (down, right))
    within = [(at >= 0) & (at < size) for at in (rows, columns)]
    result = kernels.gather(1, (rows % size)[:, :, None].expand_as(kernels))
    result = result.gather(2, (columns % size)[:, None, :].expand_as(kernels))
    return result * within[0][:, :, None] * within[1][:, None, :]


def padded(kernels: Tensor, size: int) -> Tensor:
    """Return kernels (..., size, size) with the same middle: zeros are added, or sides are cut."""
    before = [size // 2 - side // 2 for side in kernels.shape[-2:]]
    after = [size - side - b for side, b in zip(kernels.shape[-2:], before, strict=True)]
    return F.pad(kernels, (before[1], after[1], before[0], after[0]))


def trimmed(kernels: Tensor) -> Tensor:
    """Return kernels in the smallest common odd square that contains the values above 0."""
    away = (kernels > 0).flatten(0, -3).any(0).nonzero() - kernels.shape[-1] // 2
    return padded(kernels, 2 * int(away.abs().max()) + 1)


def kernel_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the similarity of kernels, (...): 1 for the same blur, wherever its origin is.

    It is the peak of their normalised cross-correlation; shapes (..., size, size) broadcast.
    """
    size = fast_length(first.shape[-1] + second.shape[-1] - 1)
    sides = (size, size)
    product = rfft2(first, s=sides) * rfft2(second, s=sides).conj()
    most = irfft2(product, s=sides).amax((-2, -1))
    powers = first.square().sum((-2, -1)) * second.square().sum((-2, -1))
    return most / powers.sqrt()


def registered(kernels: Tensor, first: int) -> Tensor:
    """Return how far down and right of the mean each of kernels (N, s, s) lies, (N, 2), in pixels.

    That is where the centroids of all are in one place. They are moved to where they correlate most
    with the `first` one, by whole pixels, then with the mean of all, by Newton's steps.
    """
    side = 2 * kernels.shape[-1]
    spectra = centred_transfer(kernels, side, side)
    peaks = irfft2(spectra * spectra[first].conj(), s=(side, side)).flatten(1).argmax(1)
    places = torch.stack([peaks // side, peaks % side], 1)
    places = ((places + side // 2) % side - side // 2).float()
    down, right = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    rates = torch.stack(torch.broadcast_tensors(down, right)).flatten(1)
    for _ in range(5):
        moved = with_origin(spectra, places[:, 0], places[:, 1], side)
        crossed = (moved * moved.mean(0).conj()).flatten(1)
        curved = torch.einsum("nf,af,bf->nab", crossed.abs(), rates, rates)
        places = places - torch.linalg.solve(curved, crossed.imag @ rates.T) / (2 * math.pi)
        places = places - places.mean(0)
    return places


@dataclass(frozen=True)
class KernelShape:
    """The shape of a kernel.

    `length` is in pixels along its main axis; `angle` in degrees counterclockwise from the right, 0
    to 180; `straightness` is 0 for a blob and 1 for a line.
    """

    length: float
    angle: float
    straightness: float


def shape(kernel: Tensor) -> KernelShape:
    """Return the shape of a kernel (h, w), from its second moments.

    The length is that of a straight, uniform stroke with the same spread.
    """
    _, _, (across, along), axes = _axes(kernel)
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180
    straightness = 1 - across / along if along > 0 else 0.0
    return KernelShape(float(along * math.sqrt(12)), angle, float(straightness))


def halfway(kernel: Tensor) -> np.ndarray:
    """Return where a nearly straight path is in the middle of an exposure, from its kernel (h, w).

    The result, (2,), is how far down and to the right that is of the centroid. Half of the kernel's
    sum is on each side of it.
    """
    values, places, (_, spread), axes = _axes(kernel)
    across, along = (axes.T @ places.reshape(2, -1)).reshape(2, -1)
    order = along.argsort()
    passed = values.flat[order].cumsum() - values.flat[order] / 2
    middle = np.interp(0.5, passed, along[order])
    near = values.ravel() * np.exp(-((along - middle) ** 2) / (2 * (MIDDLE * spread) ** 2 + 1e-9))
    aside = (near * across).sum() / near.sum()
    right, up = axes @ [aside, CERTAIN * middle]
    return np.array([-up, right])


def _axes(kernel: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what the second moments of a kernel (h, w) tell, in double precision.

    Its values; their places (2, h, w), right and up from the centroid; the standard deviations (2,)
    across and along its main axis; and these axes, the columns of a matrix (2, 2).
    """
    values = kernel.double().cpu().numpy()
    rows, columns = np.indices(values.shape)
    row, column = (values * rows).sum(), (values * columns).sum()
    places = np.stack([columns - column, row - rows])
    covariance = np.array([[(values * a * b).sum() for a in places] for b in places])
    spreads, axes = np.linalg.eigh(covariance)
    return values, places, np.sqrt(np.maximum(spreads, 0)), axes


def reduced(images: Tensor, factor: float) -> Tensor:
    """Return images (N, C, H, W) resized by a factor of at most 1, antialiased."""
    if factor == 1:
        return images
    small = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    return small.clamp(0, 1)


# ---- Noise ---------------------------------------------------------------------------------------


def measured_noise(photos: Tensor) -> Tensor:
    """Return the standard deviation (N,) of white noise in photos (N, C, H, W).

    It is the median response to a filter that suppresses smooth content (Immerkaer, "Fast noise
    variance estimation", 1996); in blurry photos, only noise passes it.
    """
    response = torch.diff(torch.diff(photos, n=2), n=2, dim=-2).abs()
    return response.reshape(len(photos), -1)[:, ::7].median(1).values / (0.6745 * 6)
