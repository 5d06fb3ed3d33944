"""Non-blind deconvolution: photos without the blur of windows whose kernels are known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.engine import Canvas
from blurkit.engine.torch_runner import (
    autocast,
    channels_last,
    choose_device,
    choose_precision,
    worker_threads,
)
from blurkit.io.records import central_crop
from blurkit.options import Precision
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.fourier import (
    centred_transfer,
    centroid,
    framed,
    irfft2,
    measured_noise,
    rfft2,
    shape,
    trimmed,
    unframed,
    with_residual,
)
from blurkit.systems.deconvolution.lights import BRIGHT, Lights, brightness, lights
from blurkit.systems.deconvolution.networks import Deconvolver, Restored
from blurkit.systems.deconvolution.windows import (
    Window,
    batch,
    blurs,
    displacements,
    exposed,
    narrowed,
    scaled,
    shrunk,
    spread,
)

WORKERS = 4
"""How many windows are restored at the same time at most: each takes some 100 MB."""

LONGEST = 45.0
"""Length of the longest blur that the network undoes, pixels: it was trained on kernels of 41. What
has longer blur is restored in a small copy. Of 16 photos under long blur, with their true kernels,
copies in which it is about 50 pixels long gained 0.7 dB more than the photos themselves."""

PROMISED = 256
"""Side of the middle of a window in which the network's promises are looked at, pixels."""

PASSED = 0.3
"""Part of a frequency's amplitude below which a kernel hardly lets it through."""

SHARP, SHARP_WINDOWS = (0.15, 0.3), (0.35, 0.5)
"""Ratios of the power that a photo and the picture without its blur have at such frequencies: from
the first on, a place begins to count as sharp itself, from the second on it does wholly; and the
same of a window, weighted by the former power, in which places are looked at. Of 19 windows under
slight blur, 17 had 0.08 to 0.32, two 0.39 and 0.43; 17 with what was in focus, or followed by the
camera, had 0.41 to 1.2."""

LOBES = 5
"""How many pixels on each side of a place interpolate what is moved by parts of a pixel. Restored
photos lost 0.08 dB on the mean by bicubic interpolation, up to 0.25, and nothing by these."""

Watch = Callable[[str, int, int], None]
"""Called with the name of the stage, the number of windows done, and their total number."""


def unwatched(stage: str, done: int, total: int) -> None:
    """Ignore the progress."""


class NonBlindDeconvolution:
    """A network that deconvolves photos of any size with known kernels, on a device.

    The network is moved there and put into eval mode. `joins` says whether it accepts drafts.
    """

    def __init__(self, network: Deconvolver, device: str, precision: Precision) -> None:
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.network = network.eval().to(self.device)
        self.joins = network.options["drafts"]
        channels_last(self.network)

    @torch.inference_mode()
    def __call__(
        self, photos: Tensor, kernels: Tensor, gammas: Sequence[float], drafts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return photos (N, 3, H, W) without the blur of kernels (N, h, w), and the improvement.

        The latter is `improvement`; with `drafts`, shaped like the photos, it is that of these.
        """
        height, width = photos.shape[-2:]
        known = self._known(photos, kernels, gammas)
        inputs, kernels, noise, gamma = known
        made = self._made(known, None if drafts is None else self._padded(drafts))
        image = with_residual(made.image.float(), inputs, kernels, gamma, noise)
        return image[..., :height, :width], improvement(made)

    @torch.inference_mode()
    def promises(self, photos: Tensor, kernels: Tensor, gammas: Sequence[float]) -> Tensor:
        """Return the mean improvement (N,) that kernels promise for photos (N, 3, H, W)."""
        return improvement(self._made(self._known(photos, kernels, gammas))).mean((1, 2, 3))

    @torch.inference_mode()
    def lights(self, photo: Tensor, kernel: Tensor, gamma: float) -> Lights:
        """Return what lamps add to a photo (1, 3, H, W) under a kernel (h, w)."""
        known = photo, trimmed(kernel[None]), photo.new_tensor([gamma])
        return lights(*(x.to(self.device) for x in known))

    @torch.inference_mode()
    def sharper(self, photo: Tensor, *changed: Tensor) -> list[float]:
        """Return the mean improvement of changed photos (3, H, W), seen as photos without blur."""
        every = torch.stack([photo, *(image.clamp(0, 1) for image in changed)])
        known = self._known(every, torch.ones(len(every), 1, 1), [2.2] * len(every))
        errors = self._made(known).errors[:, 0].float().mean((1, 2))
        return (errors[0] - errors[1:]).tolist()

    @torch.inference_mode()
    def briefly(self, photo: Tensor, kernel: Tensor, gamma: float) -> Tensor:
        """Return a photo (3, H, W) without the blur of a kernel (h, w), by the first step alone."""
        height, width = photo.shape[-2:]
        inputs, kernels, noise, gammas = self._known(photo[None], kernel[None], [gamma])
        with autocast(self.device, self.dtype):
            _, image, _ = self.network.first_step(inputs, kernels, noise, gammas)
        return image[0, :, :height, :width].float()

    def _made(self, known: tuple[Tensor, ...], drafts: Tensor | None = None) -> Restored:
        """Return what the network makes of the results of `_known`."""
        with autocast(self.device, self.dtype):
            return self.network(*known, drafts=drafts)

    def _known(
        self, photos: Tensor, kernels: Tensor, gammas: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """Return photos, kernels, noise and gammas as the network takes them."""
        inputs = self._padded(photos)
        noise, gamma = measured_noise(inputs), inputs.new_tensor(list(gammas))
        return inputs, kernels.to(self.device), noise, gamma

    def _padded(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) on the device, with sides that the network takes."""
        height, width = images.shape[-2:]
        missing = (0, -width % self.network.multiple, 0, -height % self.network.multiple)
        return F.pad(images, missing, mode="replicate").to(self.device)


def improvement(made: Restored) -> Tensor:
    """Return the expected improvement (N, 1, rows, columns) of photos in blocks of 8x8 pixels.

    It is the logarithm of the ratio of the photo's expected error to the result's.
    """
    return (made.errors[:, :1] - made.errors[:, 1:]).float()


@dataclass(frozen=True)
class Undone:
    """A photo (H, W, 3) without the blur of its windows.

    The picture is where the kernels' centroids are. `share` (H, W, 1) is how much of it, 0 to 1,
    was made with kernels, and `lit` (H, W, 1) how much of the photo's light there is that of lamps.
    `unexplained` is how much of it no kernel explains: see `blurred_part`.
    """

    picture: np.ndarray
    share: np.ndarray
    lit: np.ndarray
    unexplained: float = 0.0


@torch.inference_mode()
def undone(
    undo: NonBlindDeconvolution,
    image: np.ndarray,
    windows: Sequence[Window],
    otherwise: np.ndarray | None,
    options: WindowOptions,
    watch: Watch = unwatched,
) -> Undone:
    """Return a photo (H, W, 3) without the blur of its windows, float32, not clamped.

    Windows whose kernel is not believed show `otherwise` (None: the photo as it is), which is
    joined with the result of the others. Long blur is undone in a small copy, to which `detailed`
    adds what only the photo shows.
    """
    believed = [window for window in windows if window.believed]
    if not believed:
        fallback = image if otherwise is None else otherwise
        nothing = np.zeros((*image.shape[:2], 1), np.float32)
        return Undone(fallback.copy(), nothing, nothing)
    length = float(np.median([shape(window.kernel).length for window in believed]))
    if length <= LONGEST:
        return _blended(undo, image, windows, otherwise, options, watch)
    scale = LONGEST / length
    copy, rest = exposed(image, scale), None if otherwise is None else shrunk(otherwise, scale)
    small = replace(options, overlap=round(options.overlap * scale))
    made = _blended(undo, copy, scaled(windows, image, copy), rest, small, watch)
    return detailed(image, copy, made, windows, options.overlap, undo.device)


def _blended(
    undo: NonBlindDeconvolution,
    image: np.ndarray,
    windows: Sequence[Window],
    otherwise: np.ndarray | None,
    options: WindowOptions,
    watch: Watch,
) -> Undone:
    """Return what `undone` does, of windows some of which are believed, in the photo itself."""
    fallback = image if otherwise is None else otherwise
    believed = narrowed([window for window in windows if window.believed], options.overlap)
    canvas = Canvas(image.shape[0], image.shape[1], 6, options.overlap)
    for window in windows:
        if not window.believed:
            rest = window.cut(fallback)
            canvas.add(window.top, window.left, np.pad(rest, ((0, 0), (0, 0), (0, 3))))
    with worker_threads(undo.device, WORKERS) as pool:
        work = partial(mixed, undo, image, otherwise=otherwise, options=options)
        made = pool.map(work, believed, displacements(believed).tolist())
        for number, (window, own) in enumerate(zip(believed, made, strict=True), 1):
            canvas.add(window.top, window.left, own.permute(1, 2, 0).numpy())
            watch("undo blur", number, len(believed))
    result = canvas.image()
    picture, unexplained = np.ascontiguousarray(result[..., :3]), float(result[..., 5].mean())
    return Undone(picture, result[..., 3:4], result[..., 4:5], unexplained)


@torch.inference_mode()
def mixed(
    undo: NonBlindDeconvolution,
    image: np.ndarray,
    window: Window,
    displaced: Sequence[float],
    otherwise: np.ndarray | None,
    options: WindowOptions,
) -> Tensor:
    """Return a window without its blur where that may help, that share, and what lamps light.

    The result is (6, H, W), on the CPU; the last two are how much is `lit` by lamps, and how much
    the kernel does not explain. Lamps are taken out of the photo and added to the result, which is
    used wherever their light is. The rest is `otherwise` (None: the photo), which a network that
    `joins` drafts joins as well. One half of each is where the expected improvement is `margin`, or
    where a draft is joined and none is expected; a kernel whose origin is known is used everywhere.
    """
    photo = batch(image, window)
    rest = photo if otherwise is None else batch(otherwise, window)
    joined = otherwise is not None and undo.joins
    lamps = undo.lights(photo, window.kernel, window.gamma)
    lit = lamps.share.cpu()
    draft = rest + lit * (lamps.dark.cpu() - rest) if joined else None
    result, better = undo(lamps.dark, trimmed(window.kernel[None]), [window.gamma], draft)
    part = torch.ones_like(lit)  # where lamps shine, they show that the kernel is right
    if window.centred and brightness(lamps.lamps.mean(1)) < BRIGHT:
        part = blurred_part(lamps.dark.cpu(), result.cpu(), window.kernel.cpu())
    result = lamps.added(result, result.new_tensor([window.gamma])).cpu()
    result = shifted(result, displaced)
    margin = 0 if joined else options.margin
    better = F.avg_pool2d(better, 5, 1, 2, count_include_pad=False)
    weights = torch.sigmoid(options.decision * (better - margin))
    weights = F.interpolate(weights, scale_factor=8, mode="bilinear")
    height, width = result.shape[-2:]
    weights = part * torch.maximum(weights[..., :height, :width].cpu(), lit)
    if not window.centred:
        weights = torch.ones_like(weights)
    return torch.cat([rest + weights * (result - rest), weights, part * lit, 1 - part], 1)[0]


def blurred_part(photo: Tensor, picture: Tensor, kernel: Tensor) -> Tensor:
    """Return how far, 0 to 1, places of a photo may be under a kernel's blur, (1, 1, H, W).

    Where a photo (1, 3, H, W) shows detail that the kernel (h, w) would not have let through,
    little less than the `picture` without the blur and more than noise, it is sharp itself: what
    moved, or is out of focus, is elsewhere.
    """
    height, width = photo.shape[-2:]
    kernel = trimmed(kernel[None])
    both = framed(torch.cat([photo, picture.clamp(0, 1)]).mean(1), kernel.shape[-1] // 2 + 1)
    sides = (both.shape[-2], both.shape[-1])
    stopped = torch.sigmoid(8 - 8 / PASSED * centred_transfer(kernel, *sides).abs())
    detail = unframed(irfft2(rfft2(both) * stopped, s=sides), height, width).square()
    power = F.avg_pool2d(detail[:, None], 8, ceil_mode=True)
    own, sharp = F.avg_pool2d(power, 3, 1, 1, count_include_pad=False).split(1)
    noise = measured_noise(photo).square() / photo.shape[1] * stopped.square().mean()
    own, sharp = (own - noise).clamp_min(0), sharp.clamp_min(1e-8)
    away = (own / sharp / SHARP[0]).clamp_min(1).log() / math.log(SHARP[1] / SHARP[0])
    certain = (own / (noise + 1e-6) - 1).clamp(0, 1)
    first, last = SHARP_WINDOWS
    whole = own.square().sum() / (own * sharp).sum().clamp_min(1e-12)
    mixture = ((whole - first) / (last - first)).clamp(0, 1)
    part = 1 - away.clamp_max(1) * certain * mixture
    return F.interpolate(part, scale_factor=8, mode="bilinear")[..., :height, :width]


@torch.inference_mode()
def detailed(
    image: np.ndarray,
    copy: np.ndarray,
    made: Undone,
    windows: Sequence[Window],
    overlap: int,
    device: torch.device,
) -> Undone:
    """Return what was `made` of a small copy of a photo in the size of the photo (H, W, 3).

    `windows` are those of the photo, blended over `overlap` pixels. What the copy does not show
    comes from the photo: by its kernels, as in `with_residual`; as it is where none was used.
    """
    height, width = image.shape[:2]
    if np.array_equal(made.picture, copy):
        nothing = np.zeros((height, width, 1), np.float32)
        return Undone(image.copy(), nothing, nothing, made.unexplained)
    parts = np.concatenate([made.picture, made.picture - copy, made.share, made.lit], 2)
    small = torch.from_numpy(parts).permute(2, 0, 1)[None]
    canvas = Canvas(height, width, 5, overlap)
    every = windows or [Window(0, 0, height, width, believed=False)]
    for window, by in zip(every, displacements(every).tolist(), strict=True):
        start, change, share, lit = enlarged(small, window, height, width).split([3, 3, 1, 1], 1)
        photo = batch(image, window)
        own = photo + change
        if window.believed:
            kernel, gamma = trimmed(window.kernel[None]), start.new_tensor([window.gamma])
            start = shifted(start, [-x for x in by])
            known = start, photo, kernel, gamma, measured_noise(photo), lit
            sharp = with_residual(*(x.to(device) for x in known))
            own = own + share * (shifted(sharp.cpu(), by) - own)
        both = torch.cat([own, share, lit], 1)[0].permute(1, 2, 0)
        canvas.add(window.top, window.left, both.numpy())
    result = canvas.image()
    return Undone(result[..., :3], result[..., 3:4], result[..., 4:], made.unexplained)


def enlarged(copy: Tensor, window: Window, height: int, width: int) -> Tensor:
    """Return the part of a small copy (1, C, h, w) of a photo (height, width) in a window of it."""
    down, right = (
        2 * at / side - 1 for at, side in zip(window.centre, (height, width), strict=True)
    )
    matrix = copy.new_tensor([[window.width / width, 0, right], [0, window.height / height, down]])
    size = [1, copy.shape[1], window.height, window.width]
    grid = F.affine_grid(matrix[None], size, align_corners=False)
    return F.grid_sample(copy, grid, "bicubic", "border", align_corners=False)


def placed(
    picture: np.ndarray, windows: Sequence[Window], offset: Sequence[float], overlap: int
) -> np.ndarray:
    """Return the picture (H, W, 3) of `Undone` where it belongs.

    In believed windows that is `offset` pixels (down, right) from the kernels' centroids; if the
    origin of the kernels is known, all of it is where that is.
    """
    believed = [window for window in windows if window.believed]
    known = bool(believed) and not believed[0].centred
    if known:
        offset = [-float(by) for by in centroid(believed[0].kernel.double())]
    elif not believed or not any(offset):
        return picture
    image = torch.from_numpy(picture).permute(2, 0, 1)[None]
    result = shifted(image, offset)[0].permute(1, 2, 0).contiguous().numpy()
    if known or len(believed) == len(windows):
        return result
    part = spread([window.believed for window in windows], windows, picture, overlap)
    return picture + part * (result - picture)


def shifted(images: Tensor, offset: Sequence[float]) -> Tensor:
    """Return images (N, C, H, W) moved by pixels (down, right), also by parts of one.

    Bicubic interpolation would blur them; Lanczos' windowed sinc hardly does. What enters at a
    border repeats the border.
    """
    if max(map(abs, offset)) < 1e-3:  # places in an image are hardly more exact
        return images
    for by in offset:  # down, then right: what is transposed twice is as it was
        whole = math.floor(by)
        away = torch.arange(-LOBES, LOBES, device=images.device) + (by - whole)
        taps = torch.sinc(away) * torch.sinc(away / LOBES)
        images = images.mT
        wide = F.pad(images, [abs(whole) + LOBES] * 2 + [0, 0], "replicate")
        start, length = abs(whole) - whole, images.shape[-1] + 2 * LOBES - 1
        rows = wide[..., start : start + length].flatten(0, -2)[:, None]
        moved = F.conv1d(rows, (taps / taps.sum()).view(1, 1, -1))
        images = moved.view(images.shape)
    return images


# ---- where a network counts ----------------------------------------------------------------------


def needless(
    undo: NonBlindDeconvolution,
    image: np.ndarray,
    restored: np.ndarray,
    windows: Sequence[Window],
    same: Sequence[bool],
    options: WindowOptions,
    factors: Sequence[float] = (),
) -> list[bool]:
    """Return in which windows a network improves an image (H, W, 3) too little to be used.

    These are those that are the `same` anyway, and more: it would sharpen what is meant to be soft,
    such as lights and backgrounds. What it must promise differs for sharp windows, blurry ones and
    those of which nothing is sure, and is changed by `factors`.
    """
    o, result = options, list(same)
    factors = factors or [1.0] * len(windows)
    asked = [n for n, window in enumerate(windows) if not (same[n] or window.believed)]

    def promised(window: Window) -> float:
        both = (central_crop(window.cut(x), PROMISED, PROMISED) for x in (image, restored))
        (promise,) = undo.sharper(*(torch.from_numpy(x).permute(2, 0, 1) for x in both))
        return promise

    with worker_threads(undo.device) as pool:
        promises = [*pool.map(promised, [windows[n] for n in asked])]
    for n, promise in zip(asked, promises, strict=True):
        least = o.little if blurs(windows[n].kernel, o) else o.promise
        result[n] = promise < factors[n] * (o.much if windows[n].trust < o.certain else least)
    return result


def instead(
    undo: NonBlindDeconvolution,
    image: np.ndarray,
    restored: np.ndarray,
    windows: Sequence[Window],
    same: Sequence[bool],
    options: WindowOptions,
) -> list[Window]:
    """Return windows, believed where their kernels are to be used, not a network's `restored`.

    None is in windows that stay the `same`. In others, a kernel that is certain is used after all
    where the network sharpens an image (H, W, 3) more than that explains.
    """
    o, result = options, []
    for window, keep in zip(windows, same, strict=True):
        own = window.believed
        if not (own or keep) and window.trust >= o.certain and blurs(window.kernel, o):
            by_network = batch(restored, window)[0].clamp(0, 1)
            by_kernel = mixed(undo, image, window, (0, 0), restored, o)[:3]
            (gained,) = undo.sharper(by_network, by_kernel)
            own = gained < 0
        result.append(replace(window, believed=own and not keep))
    return result
