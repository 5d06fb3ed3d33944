"""Pictures for people: animations, before and after side by side, contact sheets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from blurkit.errors import UsageError
from blurkit.io.films import rgb, write_animation
from blurkit.io.formats import is_written
from blurkit.io.images import write_image
from blurkit.io.paths import is_folder
from blurkit.io.records import Image, Record, central_crop, from_float, safe_name, to_float
from blurkit.io.sinks import Sink
from blurkit.io.writing import refuse_output, replacing
from blurkit.metrics.frequency import BAND_SCALES, BANDS, bands_of
from blurkit.metrics.scores import eight_bit
from blurkit.synthesis.kernels import KernelSheet

GAP = 8
SIDE_BY_SIDE = ("blur", "restored", "reblurred", "sharp")


def side_by_side(images: Sequence[Image]) -> Image:
    """Return images (H, W, C) in one row on white, aligned at the top, as uint8 RGB."""
    height = max(image.shape[0] for image in images)
    columns: list[Image] = []
    for image in images:
        column = np.full((height, image.shape[1], 3), 255, np.uint8)
        column[: image.shape[0]] = from_float(to_float(image), np.uint8)
        columns += [column, np.full((height, GAP, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def write_comparison(
    folder: Path, record: Record, force: bool, shown: Sequence[str] = SIDE_BY_SIDE
) -> None:
    """Write the `shown` images that a record has, side by side, to folder/NAME.png.

    Raises BlurkitError if the name is unsafe, or the file exists without `force` or is unwritable.
    """
    images = [record.images[key] for key in shown if key in record.images]
    write_image(folder / f"{safe_name(record.name)}.png", side_by_side(images), force=force)


def write_bands(folder: Path, name: str, images: Iterable[tuple[str, Image]], force: bool) -> None:
    """Write images with captions and their frequency bands to folder/NAME.frequencies.png.

    A row has an image and its high and low band at each scale, enlarged to the same size, as in
    Fig. 1 of the MSFS-Net paper. Raises BlurkitError as `write_comparison` does, and if an image is
    too small.
    """
    parts: list[tuple[str, Image]] = []
    for caption, image in images:
        parts.append((caption, image))
        for number, (scale, bands) in enumerate(zip(BAND_SCALES, bands_of(image), strict=True)):
            for band, values in zip(BANDS, bands, strict=True):
                enlarged = values.repeat(2**number, 0).repeat(2**number, 1)
                parts.append((f"{band} {scale}", enlarged[:, :, None]))
    captions, pictures = zip(*parts, strict=True)
    path = folder / f"{safe_name(name)}.frequencies.png"
    most = 1 + len(BANDS) * len(BAND_SCALES)
    write_image(path, contact_sheet(pictures, captions, most), force=force)


# ---- Animations ----------------------------------------------------------------------------------

ANIMATIONS = (".gif", ".png", ".apng", ".webp")


class Animation(Sink):
    """Collects the frames of one picture and writes them as an animated GIF, PNG or WebP.

    Each frame, the first image in `show` that its record has, is shown for `1 / fps` seconds, the
    first and the last one four times as long. Raises UsageError if `path` has another suffix, and
    BlurkitError if the file exists and `force` is not set.
    """

    def __init__(self, path: Path, show: Sequence[str], fps: float, force: bool = False) -> None:
        if path.suffix.lower() not in ANIMATIONS:
            raise UsageError(f"-o {path}: an animation is one of {' '.join(ANIMATIONS)}")
        super().__init__()
        refuse_output(path, force)
        self.only = f"-o {path} is one animation"
        self._path, self._show, self._fps = path, show, fps
        self._name: str | None = None
        self._frames: list[np.ndarray] = []

    def claim(self, record: Record) -> None:
        """Raise UsageError if the frame belongs to a second picture."""
        name = record.name.rpartition("/")[0]
        if self._name not in (None, name):
            raise UsageError(f"{self.only}, but there are several pictures; name a folder/")
        self._name = name

    def write(self, record: Record) -> None:
        """Add a frame, rounded to 8 bits."""
        self._frames.append(rgb(record.image(*self._show)))

    def path(self, record: Record) -> Path:
        """Return the animation, whatever the frame."""
        return self._path

    def finish(self) -> None:
        """Write the animation, whole or not at all; without frames, write nothing."""
        if not self._frames:
            return
        durations = [round(1000 / self._fps)] * len(self._frames)
        for end in {0, len(durations) - 1}:
            durations[end] *= 4
        # Lossless WebP, because lossy compression would add to the blur that the animation shows.
        options = {"lossless": True} if self._path.suffix.lower() == ".webp" else {}
        with replacing(self._path) as partial:
            write_animation(partial, self._path, self._frames, durations, loop=0, **options)
        self.files.append(self._path)


class ContactSheets:
    """Writes a contact sheet of the frames of each picture as soon as the next picture begins.

    `output` is an image file for a single picture, or a folder/ that gets a PICTURE.png for each.
    Each frame is the first image in `show` that its record has. Raises UsageError if `output` is
    neither, and BlurkitError if a file exists and `force` is not set.
    """

    def __init__(self, output: str, show: Sequence[str], force: bool = False) -> None:
        self._path, self._several = Path(output), is_folder(output)
        self._show, self._force = show, force
        if not self._several:
            if not is_written(self._path):
                raise UsageError(f"--sheet {output}: name an image, or a folder (end it with /)")
            refuse_output(self._path, force)
        self._name: str | None = None
        self._images: list[Image] = []
        self._captions: list[str] = []

    def add(self, frame: Record) -> None:
        """Add the next frame, also if BlurkitError is raised for the sheet before it.

        Raises UsageError if it belongs to a second picture and the output is a single file.
        """
        name = frame.name.rpartition("/")[0]
        if self._images and name != self._name and not self._several:
            raise UsageError(
                f"--sheet {self._path} is one file, but there are several pictures; name a folder/"
            )
        try:
            if name != self._name:
                self.finish()
        finally:
            self._name = name
            self._images.append(frame.image(*self._show))
            self._captions.append(f"{frame.attrs['amount']:.2f}")

    def finish(self) -> None:
        """Write the sheet of the current picture's frames, if there are any."""
        if not self._images:
            return
        path = self._path / f"{safe_name(str(self._name))}.png" if self._several else self._path
        sheet = contact_sheet(self._images, self._captions)
        self._images, self._captions = [], []
        write_image(path, sheet, force=self._force)


def contact_sheet(images: Sequence[Image], captions: Sequence[str], most: int = 7) -> Image:
    """Return images (H, W, C) in rows of at most `most`, each above its caption, as uint8 RGB."""
    font = ImageFont.load_default(size=max(12, images[0].shape[0] // 18))
    columns = math.ceil(len(images) / math.ceil(len(images) / most))
    captioned = [_captioned(i, text, font) for i, text in zip(images, captions, strict=True)]
    rows = (captioned[first : first + columns] for first in range(0, len(captioned), columns))
    turned = side_by_side([side_by_side(row).swapaxes(0, 1) for row in rows])  # a column of rows
    return np.ascontiguousarray(turned.swapaxes(0, 1))


def _captioned(
    image: Image, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image:
    right, bottom = (round(side) for side in font.getbbox(text)[2:])
    picture = rgb(image)
    height, width = picture.shape[:2]
    canvas = Pillow.new("RGB", (width, height + bottom + GAP), "white")
    canvas.paste(Pillow.fromarray(picture))
    ImageDraw.Draw(canvas).text(((width - right) / 2, height + GAP / 2), text, "black", font)
    return np.asarray(canvas)


# ---- Before and after ----------------------------------------------------------------------------

Panels = dict[str, str]
"""The caption of each image of a record that is shown."""

RESTORED: Panels = {"blur": "before", "restored": "after", "sharp": "reference"}
REBLURRED: Panels = {"sharp": "before", "reblurred": "after", "blur": "real blur"}

PANEL_SIDE = 960
"""The longest side of a panel in pixels; of larger photos, a part is shown in full size below."""

STEP = 16
"""The grid in pixels on which the part that changed most is searched."""


def before_after(record: Record, panels: Panels) -> Image:
    """Return the record's images among `panels` in one row with captions, as uint8 RGB.

    The first two captions state the sharpness, if known, and a corner of the first image has the
    kernels that were found, if they were kept. Large photos are shrunk, and a second row shows the
    part that changed most at full size. Raises BlurkitError without the first two images.
    """
    roles = [role for role in panels if role in record.images]
    before, after = (eight_bit(record.image(role)) for role in list(panels)[:2])
    captions = [panels[role] for role in roles]
    for number, key in enumerate(("sharpness_before", "sharpness_after")):
        if key in record.attrs:
            captions[number] += f", sharpness {record.attrs[key]:.2f}"
    images = [eight_bit(record.images[role]) for role in roles]
    shown = [shrunk_to(image, PANEL_SIDE) for image in images]
    if max(before.shape[:2]) > PANEL_SIDE:
        part = most_changed(before, after, min(PANEL_SIDE, *before.shape[:2]))
        shown += [image[part] for image in images]
        captions += [f"{panels[role]}, part in full size" for role in roles]
    if roles[0] == "blur" and (sheet := KernelSheet.of(record.attrs)):
        shown[0] = with_inset(shown[0], sheet)
    return contact_sheet(shown, captions, len(roles))


def with_inset(image: Image, sheet: KernelSheet) -> Image:
    """Return an image (H, W, C) in uint8 RGB with the kernels of a sheet at the lower left."""
    # What is below 2 % of a kernel's largest value need not be seen.
    seen = (sheet.kernels > 0.02 * sheet.kernels.max((2, 3), keepdims=True)).any((0, 1))
    middle = seen.shape[0] // 2
    reach = int(np.abs(np.argwhere(seen) - middle).max(initial=0))
    part = slice(middle - reach, middle + reach + 1)
    drawn = replace(sheet, kernels=sheet.kernels[:, :, part, part]).picture() / 65535
    kernels = Pillow.fromarray((255 * drawn**0.5).astype(np.uint8))  # the light that is seen
    factor = 0.3 * min(image.shape[1] / kernels.width, image.shape[0] / kernels.height)
    width, height = (max(1, round(side * factor)) for side in kernels.size)
    pixels = rgb(image).copy()
    pixels[-height:, :width] = np.asarray(kernels.resize((width, height)))[:, :, None]
    return pixels


def film_sheet(pictures: Sequence[Image], frames: Sequence[int]) -> Image:
    """Return pictures of some frames of a film, two in a row, with the frames' numbers."""
    shown = [shrunk_to(picture, PANEL_SIDE) for picture in pictures]
    return contact_sheet(shown, [f"frame {number}" for number in frames], 2)


def shrunk_to(image: Image, longest: int) -> Image:
    """Return a uint8 image (H, W, C) whose longest side is at most `longest` pixels."""
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    plain = image[:, :, 0] if image.shape[2] == 1 else image
    small = np.asarray(Pillow.fromarray(plain).resize((width, height), Pillow.Resampling.LANCZOS))
    return small[:, :, None] if image.shape[2] == 1 else small


def most_changed(before: Image, after: Image, side: int) -> tuple[slice, slice]:
    """Return the square of `side` pixels in which two images (H, W, C) differ most."""
    difference = np.abs(to_float(after) - to_float(before)).mean(axis=2)
    sums = np.pad(difference.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    tops = np.arange(0, before.shape[0] - side + 1, STEP)[:, None]
    lefts = np.arange(0, before.shape[1] - side + 1, STEP)[None]
    ends = tops + side, lefts + side
    total = sums[ends] - sums[tops, ends[1]] - sums[ends[0], lefts] + sums[tops, lefts]
    row, column = np.unravel_index(total.argmax(), total.shape)
    top, left = int(row) * STEP, int(column) * STEP
    return slice(top, top + side), slice(left, left + side)


# ---- Contact sheets ------------------------------------------------------------------------------

MOST_PAIRS, PAIRS_IN_A_ROW, SIDE = 24, 3, 256


class PairSheet:
    """Collects the first sharp and blurry pairs and writes the centre of each as one picture.

    It is not scaled down, which would hide the blur. Raises UsageError if `path` is no image file,
    and BlurkitError if it exists and `force` is not set.
    """

    def __init__(self, path: Path, force: bool = False) -> None:
        if not is_written(path):
            raise UsageError(f"--sheet {path}: name an image file, such as sheet.png")
        refuse_output(path, force)
        self._path, self._force = path, force
        self._pairs: list[Image] = []
        self._captions: list[str] = []

    def add(self, record: Record) -> None:
        """Add a record if it is a pair and the sheet is not full."""
        if len(self._pairs) < MOST_PAIRS and {"blur", "sharp"} <= record.images.keys():
            both = (central_crop(record.images[k], SIDE, SIDE) for k in ("sharp", "blur"))
            self._pairs.append(side_by_side(list(both)))
            self._captions.append(caption(record))

    def finish(self) -> None:
        """Write the picture, if any pair was added."""
        if self._pairs:
            sheet = contact_sheet(self._pairs, self._captions, PAIRS_IN_A_ROW)
            write_image(self._path, sheet, force=self._force)


def caption(record: Record) -> str:
    """Return one line on how a record was blurred; it starts with the name of a real pair.

    Noise is given in grey levels of 255, at mid-grey.
    """
    attrs = record.attrs
    parts = [record.name]
    if "blur_kind" in attrs:
        parts = [f"{attrs['blur_kind']} {attrs['blur_extent']:.0f} px"]
    if np.isfinite(attrs.get("psnr_blur", np.nan)):
        parts.append(f"{attrs['psnr_blur']:.1f} dB")
    gamma = attrs.get("gamma", 2.2)
    variance = attrs.get("noise", 0) ** 2 + attrs.get("blur_shot", 0) * 0.5**gamma
    slope = 0.5 ** (1 - gamma) / gamma  # of the curve from light to pixel values
    for template, value in (
        ("defocus {:.1f}", attrs.get("blur_defocus", 0)),
        ("highlights x{:.1f}", attrs.get("blur_highlights", 0)),
        ("noise {:.1f}", 255 * slope * variance**0.5),
        ("JPEG {}", attrs.get("blur_jpeg", 0)),
    ):
        if value:
            parts.append(template.format(value))
    return ", ".join(parts)
