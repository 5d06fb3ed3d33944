"""Blur kernels: read from published files, drawn as random shake, and sheets of a photo's own."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from blurkit.errors import BlurkitError, one_line
from blurkit.io.codecs.pillow import opened
from blurkit.io.hdf5 import check_stored, items, probe
from blurkit.io.images import read_image
from blurkit.io.paths import IMPORTED_FROM, reading_errors, walk
from blurkit.io.writing import replacing

LARGEST_KERNEL = 1000
"""The longest side of a kernel in pixels: of larger arrays, nothing is read."""

MOST_BYTES = 1 << 26
"""The most bytes of one variable of a MATLAB file, which may also hold pictures."""

KERNEL_SUFFIXES = (".mat", ".npy", ".npz", ".png")

Kernel = np.ndarray
"""(height, width) float64 with a sum of 1."""


def read_kernels(path: Path) -> list[tuple[str, Kernel]]:
    """Return the kernels, with names, of a file or of all kernel files in a folder, sorted.

    It reads MATLAB files of any version (matrices and cells of matrices; from Levin's x, y, f only
    the kernel f), NumPy .npz and .npy, and grey PNG of 8 or 16 bits, of a sheet the cells that are
    not black. Each kernel is divided by its sum. The names of several kernels in one file are
    numbered, such as `Levin09-1`; files are in natural order. Raises BlurkitError if a file is
    missing, damaged or does not hold a kernel.
    """
    if path.is_dir():
        files = walk(path, KERNEL_SUFFIXES)
        if not files:
            raise BlurkitError(f"{path}: holds no kernel file ({' '.join(KERNEL_SUFFIXES)})")
        return [named for file in files for named in read_kernels(file)]
    kernels = [normalised(array, path) for array in _arrays(path)]
    if not kernels:
        raise BlurkitError(f"{path}: holds no matrix")
    if len(kernels) == 1:
        return [(path.stem, kernels[0])]
    return [(f"{path.stem}-{number}", kernel) for number, kernel in enumerate(kernels, 1)]


def random_trajectory_kernel(rng: np.random.Generator, size: int) -> Kernel:
    """Return the kernel (size, size) of a random hand shake, its centroid at the centre pixel.

    A point moves with inertia, trembles, is pulled back to its start and jerks now and then; its
    path is scaled to the size of the kernel and drawn with subpixel accuracy. After Boracchi and
    Foi, "Modeling the performance of image restoration from motion blur", IEEE Transactions on
    Image Processing, 2012. Raises ValueError if `size` is not odd and positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel's size is an odd number of pixels, got {size}")
    return draw_path(random_trajectory(rng), size)


def draw_path(path: np.ndarray, size: int) -> Kernel:
    """Return the kernel (size, size) of complex positions (steps,), scaled to fit and centred."""
    reach = (size - 1) / 2
    path = scaled_path(path, reach)
    return splat(path.imag + reach, path.real + reach, size)


def scaled_path(path: np.ndarray, reach: float) -> np.ndarray:
    """Return complex positions (steps,) with mean 0, scaled so that the farthest is at `reach`."""
    path = path - path.mean()
    return path * (reach / max(np.abs(path.real).max(), np.abs(path.imag).max()))


class Movement(NamedTuple):
    """How something moves during one exposure.

    `memory` holds the decimal logarithms of the shortest and longest time over which its velocity
    decays, in exposures; `pull` is the strongest pull back to its start, and `jerks` the largest
    number of jerks.
    """

    memory: tuple[float, float]
    pull: float
    jerks: float = 0.0


SHAKEN = Movement((-1.5, 0.3), 30, 3)
"""A hand that shakes."""
CARRIED = Movement((0, 1.5), 2)
"""A camera that is carried or panned rather than shaken."""
UNHINDERED = Movement((1, 2.5), 0.5)
"""Anything during a short exposure: its velocity hardly changes."""


def random_trajectory(
    rng: np.random.Generator, steps: int = 2000, movement: Movement = SHAKEN
) -> np.ndarray:
    """Return the complex positions (steps,), at any scale, of a moving point in one exposure."""
    import scipy.signal  # slow to import, and few commands need it

    step = 1 / steps
    memory = 10 ** rng.uniform(*movement.memory)
    pull = rng.uniform(0, movement.pull)
    jerks = rng.random(steps) < (rng.uniform(0, movement.jerks) if movement.jerks else 0) * step
    pushes = rng.standard_normal((steps, 2)) @ [1, 1j] * np.sqrt(2 * step / memory)
    velocity = complex(*rng.standard_normal(2))
    pushes[jerks] += 3 * rng.standard_normal((np.count_nonzero(jerks), 2)) @ [1, 1j]
    # velocity += push - (velocity / memory + pull * position) * step; position += velocity * step
    feedback = [1, step / memory + pull * step**2 - 2, 1 - step / memory]
    state = scipy.signal.lfiltic([step], feedback, [0, -velocity * step])
    path, _ = scipy.signal.lfilter([step], feedback, pushes, zi=state)
    return np.concatenate([[0], path[:-1]])


def splat(rows: np.ndarray, columns: np.ndarray, size: int) -> Kernel:
    """Return the kernel (size, size) of points, each over four pixels, which keeps the centroid."""
    kernel = np.zeros((size + 1, size + 1))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for y, below in enumerate((1 - down, down)):
        for x, beside in enumerate((1 - right, right)):
            np.add.at(kernel, (top + y, left + x), below * beside)
    return kernel[:size, :size] / len(rows)


def normalised(array: np.ndarray, where: str | Path) -> Kernel:
    """Return a matrix divided by its sum, in float64.

    Raises BlurkitError, naming `where`, for other arrays, for one with a side longer than
    `LARGEST_KERNEL`, and unless the sum is above 0.
    """
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise BlurkitError(
            f"{where}: a kernel is a matrix of numbers, found {array.dtype} of shape {array.shape}"
        )
    try:
        _check_size(array.shape)
    except ValueError as error:
        raise BlurkitError(f"{where}: {error}") from error
    kernel = array.astype(np.float64)
    with np.errstate(all="ignore"):  # of values that are not finite
        total = kernel.sum()
    if not np.isfinite(total) or total <= 0:
        raise BlurkitError(f"{where}: a kernel's sum is above 0, found {total:g}")
    return kernel / total


def _check_size(shape: tuple[int, ...]) -> None:
    """Raise ValueError if a side of an array is longer than `LARGEST_KERNEL`."""
    if max(shape, default=0) > LARGEST_KERNEL:
        sides = "x".join(map(str, shape))
        raise ValueError(f"a kernel has at most {LARGEST_KERNEL} pixels a side, found {sides}")


# ---- sheets --------------------------------------------------------------------------------------

SHEET_TEXT = "blurkit"
"""The key of the text in a PNG file that states a sheet's gamma and side."""

NO_BLUR = 0.999
"""The largest value from which a kernel of a sheet is no blur."""

SMALLEST_SIDE = 48
"""The smallest side of a window in which a blur is estimated, in pixels."""

CELL_MARGIN = 1
"""Black pixels around a kernel in its cell, so that none is taken for a line of the sheet."""


@dataclass(frozen=True, eq=False)
class KernelSheet:
    """The kernels of a photo's windows.

    `kernels` is (rows, columns, size, size) with an odd size; each has the sum 1 and its centroid
    as the origin. One of zeros is unknown, one with all in one pixel is no blur. `gamma` is the
    exponent from pixel values to the light that they blur, `side` that of the windows in pixels
    (None: the usual one).
    """

    kernels: np.ndarray
    gamma: float = 2.2
    side: int | None = None

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> KernelSheet | None:
        """Return the sheet in the attributes of a record, None if its blur was not kept."""
        kernels, gamma, side = (attrs.get(f"blur_{name}") for name in ("kernels", "gamma", "side"))
        if not isinstance(gamma, (int, float)) or not isinstance(side, (int, np.integer)):
            return None
        if not isinstance(kernels, np.ndarray) or kernels.dtype != np.float32 or kernels.ndim != 4:
            return None
        height, width = kernels.shape[2:]
        odd = kernels.size and height == width and width % 2
        return cls(kernels, float(gamma), int(side)) if odd else None

    def picture(self) -> np.ndarray:
        """Return the kernels in cells between white lines, (H, W) uint16; each largest is white."""
        rows, columns, side = self.kernels.shape[:3]
        step = side + 2 * CELL_MARGIN + 1
        drawn = np.full((rows * step + 1, columns * step + 1), 65535, np.uint16)
        for row, column in np.ndindex(rows, columns):
            kernel = np.pad(self.kernels[row, column].astype(np.float64), CELL_MARGIN)
            scaled = np.rint(kernel * (65535 / max(kernel.max(), 1e-12)))
            top, left = row * step + 1, column * step + 1
            drawn[top : top + step - 1, left : left + step - 1] = scaled
        return drawn

    def write(self, path: Path, force: bool = False) -> None:
        """Write the picture as a PNG file of 16 bits. Raises BlurkitError as `replacing` does."""
        notes = PngInfo()
        notes.add_text(SHEET_TEXT, json.dumps({"gamma": self.gamma, "side": self.side}))
        with replacing(path, force) as partial:
            Pillow.fromarray(self.picture()).save(partial, "PNG", pnginfo=notes)


def read_sheet(path: Path) -> KernelSheet | None:
    """Return the sheet in a PNG file, None if the file is another one.

    An editor may drop gamma and side, which then are the usual ones. Raises BlurkitError if the
    file is missing or damaged, or if its lines are.
    """
    if path.suffix.lower() != ".png":
        return None
    cells = _cells_between_lines(_grey_png(path), path)
    if cells is None:
        return None
    cells = cells[:, :, CELL_MARGIN:-CELL_MARGIN, CELL_MARGIN:-CELL_MARGIN]
    sums = cells.sum((2, 3), keepdims=True, dtype=np.float64)
    kernels = (cells / np.maximum(sums, 1)).astype(np.float32)
    with path.open("rb") as file, opened(file, str(path), "PNG") as image:
        text = image.info.get(SHEET_TEXT)
    try:
        about = json.loads(text) if text else {}
        gamma, side = float(about.get("gamma", 2.2)), about.get("side")
        if not 0 < gamma < 10 or (side is not None and int(side) < SMALLEST_SIDE):
            raise ValueError
    except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BlurkitError(f"{path}: its text {SHEET_TEXT!r} is damaged; remove it") from error
    return KernelSheet(kernels, gamma, side and int(side))


def _grey_png(path: Path) -> np.ndarray:
    """Return the pixels (H, W) of a PNG file, or raise BlurkitError if it holds no grey kernels."""
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    with reading_errors(path), path.open("rb") as file, opened(file, str(path), "PNG") as image:
        if max(image.size) > 20_000:  # more than any sheet has
            normalised(np.broadcast_to(1.0, image.size), path)  # says how large a kernel may be
    pixels = read_image(path).pixels
    if np.any(pixels != pixels[:, :, :1]):
        raise BlurkitError(f"{path}: is a colour image; a kernel is grey")
    return pixels[:, :, 0]


def _cells_between_lines(pixels: np.ndarray, path: Path) -> np.ndarray | None:
    """Return the cells (rows, columns, h, w) of a picture that white lines divide, None of others.

    Raises BlurkitError if there are such lines all around it, but not at equal distances.
    """
    white = pixels == pixels.max()
    frame = white[0].all() and white[-1].all() and white[:, 0].all() and white[:, -1].all()
    if not frame or white.all():
        return None
    across, down = np.flatnonzero(white.all(1)), np.flatnonzero(white.all(0))
    steps = {*np.diff(across).tolist(), *np.diff(down).tolist()}
    if len(steps) != 1 or (step := steps.pop()) % 2 or step < 2 * CELL_MARGIN + 2:
        raise BlurkitError(f"{path}: a white line between its kernels is damaged")
    cells = pixels[1:, 1:].reshape(len(across) - 1, step, len(down) - 1, step)
    return np.ascontiguousarray(cells.swapaxes(1, 2)[:, :, :-1, :-1])


# ---- files ---------------------------------------------------------------------------------------


def _arrays(path: Path) -> Iterator[np.ndarray]:
    """Yield every matrix in a file. Raises BlurkitError if the file cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in KERNEL_SUFFIXES:
        raise BlurkitError(f"{path}: not a kernel file; use one of {' '.join(KERNEL_SUFFIXES)}")
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    if suffix == ".png":
        pixels = _grey_png(path)
        cells = _cells_between_lines(pixels, path)
        if cells is None:
            yield normalised(pixels, path)  # refuses one that is too large
        else:
            yield from (cell for row in cells for cell in row if cell.any())
        return
    if suffix == ".mat" and h5py.is_hdf5(path):
        probe(path)
    try:
        yield from _matlab(path) if suffix == ".mat" else _numpy(path)
    except Exception as error:  # the readers raise all kinds of exceptions on damaged data
        raise BlurkitError(f"{path}: cannot read this kernel file ({one_line(error)})") from error


def _numpy(path: Path) -> Iterator[np.ndarray]:
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        yield loaded
        return
    for member in loaded.zip.infolist():
        with loaded.zip.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
            _check_size(getattr(np.lib.format, header)(file)[0])
    yield from (loaded[name] for name in loaded.files)


def _check_inflated(path: Path) -> None:
    """Raise ValueError if a compressed variable of a MATLAB file is larger than `MOST_BYTES`."""
    data, place = path.read_bytes(), 128  # after the header
    order = "<" if data[126:128] == b"IM" else ">"
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        place += 8
        if kind == 15:  # deflated
            inflater = zlib.decompressobj()
            inflater.decompress(data[place : place + size], MOST_BYTES)
            if inflater.unconsumed_tail:
                raise ValueError(f"a variable has more than {MOST_BYTES} bytes")
        place += size


def _read_apart(path: Path) -> dict[str, list[np.ndarray]]:
    """Return the matrices of a MATLAB file before version 7.3, by the names of variables.

    SciPy crashes on some damage, so a child process reads it. Raises ValueError if that fails.
    """
    _check_inflated(path)
    command = [sys.executable, "-m", "blurkit.synthesis.kernels", str(path.absolute())]
    ran = subprocess.run(command, input=b"", capture_output=True, timeout=60, cwd=IMPORTED_FROM)
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").splitlines()
        raise ValueError(said[-1] if ran.returncode > 0 and said else "its reader crashes on it")
    variables: dict[str, list[np.ndarray]] = {}
    with np.load(io.BytesIO(ran.stdout), allow_pickle=False) as loaded:
        for key in loaded.files:
            variables.setdefault(key.rpartition("-")[0], []).append(loaded[key])
    return variables


def _matlab(path: Path) -> list[np.ndarray]:
    if h5py.is_hdf5(path):  # version 7.3
        with h5py.File(path, locking=False) as file:
            variables = {k: _dereferenced(v, k, file) for k, v in items(file) if k != "#refs#"}
    else:
        variables = _read_apart(path)
    if {"x", "y", "f"} <= set(variables):  # Levin's sharp image, blurred image and kernel
        return variables["f"]
    return [array for arrays in variables.values() for array in arrays]


def _cells(value: np.ndarray) -> list[np.ndarray]:
    if value.dtype != object:
        return [value]
    return [array for cell in value.ravel() for array in _cells(np.asarray(cell))]


def _dereferenced(item: Any, name: str, file: h5py.File, depth: int = 0) -> list[np.ndarray]:
    """Return the matrices of one variable, transposed because MATLAB stores them by columns.

    Raises BlurkitError for a variable that is no matrix, or cells of them up to four deep.
    """
    if not isinstance(item, h5py.Dataset) or depth > 4:
        raise BlurkitError(f"{name!r} is not a matrix")
    check_stored(item, name)
    if item.dtype == h5py.ref_dtype:
        cells = [file[ref] for ref in item[()].ravel()]
        return [array for c in cells for array in _dereferenced(c, name, file, depth + 1)]
    _check_size(item.shape)
    return [item[()].T]


if __name__ == "__main__":
    import scipy.io

    whole = scipy.io.loadmat(sys.argv[1])
    named: dict[str, Any] = {
        f"{name}-{number}": array
        for name, value in whole.items()
        if not name.startswith("__")
        for number, array in enumerate(_cells(value))
    }
    np.savez(sys.stdout.buffer, **named)  # objects are refused where they are read
