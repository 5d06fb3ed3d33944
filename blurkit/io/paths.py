"""Files and folders: natural order, what a folder holds, and limits on what a file may claim."""

import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from blurkit.errors import BlurkitError, one_line

IMPORTED_FROM = Path(__file__).parents[2]
"""Where child processes start: in the current folder, a file could have the name of a module."""

BYTES_PER_SECOND = 20e6
"""The bytes of a file for which a child process gets another second."""

SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}

LABELS = ("deblurred", "reblurred", "transferred", "interpolated", "previewed")
"""What commands insert into the names of images that they write next to their inputs."""

COMPARE = "compare"
"""What `--compare` inserts into the names of pictures that it writes next to results."""

STEPS = ".blind"
"""The suffix of the folder that holds the pictures of a blind search."""

REPORT_PICTURES = "images.report"
"""The folder of the pictures of an HTML report."""

_RESULT = re.compile(rf"(.+)\.(?:{'|'.join(LABELS)})(?:-\d+)?")
_COMPARISON = re.compile(rf"(.+)\.{COMPARE}(?:-\d+)?")
_LABEL = re.compile(rf"\.(?:{'|'.join(LABELS)})(?=(?:-\d+)?$)")


def natural_key(text: str | Path) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts `blur_2` before `blur_10`."""
    pieces = re.split(r"(\d+)", str(text))
    return tuple((0, int(p), p) if p.isdigit() else (1, 0, p) for p in pieces)


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, in which it is one name however it was stored."""
    return unicodedata.normalize("NFC", name)


def normal(path: Path) -> Path:
    """Return the absolute path without `.` and `..`, with links as they are."""
    return Path(os.path.normpath(path.absolute()))


@contextmanager
def reading_errors(
    where: str | Path, known: Mapping[type[OSError], str] = MappingProxyType({})
) -> Iterator[None]:
    """Turn the operating system's errors in a block into BlurkitErrors; `known` has the reasons."""
    try:
        yield
    except OSError as error:
        reason = known.get(type(error), f"cannot be read ({error.strerror})")
        raise BlurkitError(f"{where}: {reason}") from error


FAILURES = {
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ENOSPC, errno.EDQUOT),
    *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT),
}
"""The errors by which an operating system cannot read a file, whatever the file holds."""


def system_failure(error: BaseException | None) -> str:
    """Return what the operating system said if it could not read a file, "" if that is damaged.

    Libraries often raise an error of their own because of the system's; HDF5 quotes it.
    """
    while error is not None:
        if isinstance(error, OSError):
            quoted = re.search(r"\berrno = (\d+)", str(error))
            number = int(quoted[1]) if quoted else error.errno
            if number in FAILURES:
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


def reading_error(where: str | Path, damage: str, error: BaseException) -> BlurkitError:
    """Return a decoder's error as one line: `damage`, or that the system could not read a file."""
    failure = system_failure(error)
    return BlurkitError(f"{where}: {f'cannot be read ({failure})' if failure else damage}")


@contextmanager
def decoding_errors(
    where: str | Path, damage: str, reason: Callable[[Exception], str] = one_line
) -> Iterator[None]:
    """Turn a decoder's error of any kind in a block into `reading_error`, with its reason."""
    try:
        yield
    except BlurkitError:
        raise
    except Exception as error:
        raise reading_error(where, f"{damage} ({reason(error)})", error) from error


def walk(
    folder: Path, suffixes: Iterable[str], on_skip: Callable[[Path, str], None] = lambda *_: None
) -> list[Path]:
    """Return every file below `folder` whose suffix (lower case, with its dot) is in `suffixes`.

    Files are in natural order; hidden files and folders, and those that operating systems leave
    behind, are skipped. Links to folders are followed, but never back to a folder above them.
    These, and pipes, sockets and devices, which may never end, are given to `on_skip` with the
    reason. Raises BlurkitError if the folder cannot be read.
    """
    wanted = set(suffixes)
    paths: list[Path] = []

    def refuse(error: OSError) -> None:
        raise BlurkitError(f"{error.filename}: cannot be read ({error.strerror})")

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [f for f in folders if not (f.startswith(".") or f in SYSTEM_FILES)]
        loops = [f for f in folders if _leads_back(Path(parent, f), folder)]
        folders[:] = [f for f in folders if f not in loops]
        for loop in loops:
            on_skip(Path(parent, loop), "a link to a folder above it; not followed")
        for file in files:
            path = Path(parent, file)
            if file.startswith(".") or file in SYSTEM_FILES or path.suffix.lower() not in wanted:
                continue
            if path.exists() and not path.is_file():
                on_skip(path, "is not a regular file")
            else:
                paths.append(path)
    return sorted(paths, key=lambda path: natural_key(path.relative_to(folder)))


def names_below(root: Path, files: Sequence[Path]) -> list[str]:
    """Return each file's path below `root` without its suffix; files that share it keep theirs.

    Of b.jpg, b.png and c.png, the names are b.jpg, b.png and c, whatever the order of the files.
    """
    paths = [Path(composed(str(file.relative_to(root)))) for file in files]
    return distinct([(path.with_suffix("").as_posix(), path.as_posix()) for path in paths])


def distinct(candidates: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each item, the first of its candidates that no other item has as its name.

    All items that share a name take their next candidate, so the order of the items does not
    matter. Items that have no more candidates keep the last one, which may then be shared.
    """
    chosen = [0] * len(candidates)
    while True:
        names = [names[index] for names, index in zip(candidates, chosen, strict=True)]
        count = Counter(names)
        shared = [
            item
            for item, name in enumerate(names)
            if count[name] > 1 and chosen[item] + 1 < len(candidates[item])
        ]
        if not shared:
            return names
        lowest = min(chosen[item] for item in shared)
        for item in shared:
            chosen[item] += chosen[item] == lowest


def _leads_back(link: Path, root: Path) -> bool:
    """Return whether a folder below `root` is a link to a folder that it is in, or to one above."""
    if not link.is_symlink():
        return False
    target = link.resolve()
    # It is in its own folders, and in those that their links lead to.
    above = [root, *(root / part for part in link.relative_to(root).parents)]
    return any(folder.resolve().is_relative_to(target) for folder in above)


def comparison_path(result: Path, name: str | None = None) -> Path:
    """Return the picture of before and after for a result: photo.deblurred.png: photo.compare.jpg.

    A result that is not named by its command, such as out/photo.png, gets out/photo.compare.jpg.
    If its photo shares its stem with others, `name` is the photo's: photo.png.compare.jpg.
    """
    if name is not None:
        return result.with_name(f"{name}.{COMPARE}.jpg")
    stem, labelled = _LABEL.subn(f".{COMPARE}", result.stem)
    return result.with_name(f"{stem if labelled else f'{stem}.{COMPARE}'}.jpg")


def without_results(files: Sequence[Path]) -> list[Path]:
    """Return `files` without those that a command wrote next to one of them.

    These are photo.deblurred.jpg and photo.compare.jpg next to a photo of any suffix, the pictures
    of a search in photo.deblurred.blind/, and those of an HTML report. A folder is thus the same
    input when a command runs on it again.
    """
    results, folders = {*results_among(files)}, {STEPS, REPORT_PICTURES}
    return [
        file
        for file in files
        if file not in results and folders.isdisjoint((file.parent.suffix, file.parent.name))
    ]


def results_among(files: Sequence[Path]) -> list[Path]:
    """Return those of `files` that a command wrote next to another one of them."""
    stems = {file.with_suffix("") for file in files} | {*files}

    def is_result(file: Path) -> bool:
        compared = _COMPARISON.fullmatch(file.stem) if file.suffix == ".jpg" else None
        match = compared or _RESULT.fullmatch(file.stem)
        return match is not None and file.with_name(match[1]) in stems

    return [file for file in files if is_result(file)]


def is_folder(output: str) -> bool:
    """Return whether `-o OUTPUT` means a folder: it ends in a slash or is an existing folder."""
    return output.endswith(("/", os.sep)) or (output != "" and Path(output).is_dir())


# ---- Limits --------------------------------------------------------------------------------------

MOST_PIXELS = 1_000_000_000
"""The default of `--max-pixels`: photos of 200 megapixels exist, scans of more."""

MOST_DEFLATED = 1400
"""The most bytes that one byte of deflate, LZW or LZF data stands for; deflate's limit is 1032."""

UNQUESTIONED = 150_000_000
"""So many bytes of pixels, a frame of 8K, may be in a file of any size where compression has no
limit: a black picture takes a few bytes in WebP, AVIF or HEIC."""

most_pixels = MOST_PIXELS
"""The pixels that an image may have, `--max-pixels` of the command that runs."""


def check_pixels(height: int, width: int, where: str) -> None:
    """Raise BlurkitError if an image has more pixels than `--max-pixels`."""
    if height * width > most_pixels:
        raise BlurkitError(
            f"{where}: claims {width}x{height} pixels, more than --max-pixels {most_pixels}"
        )


def justified_pixels(stored: int, bits: int, limited: bool = False) -> int:
    """Return how many pixels of `bits` an image may claim in a file of `stored` bytes.

    `limited` says that its data are not compressed, or by deflate or LZW.
    """
    held = MOST_DEFLATED * stored
    return 8 * (held if limited else max(held, UNQUESTIONED)) // bits


def check_claim(
    height: int, width: int, bits: int, stored: int, where: str, limited: bool = False
) -> None:
    """Raise BlurkitError if an image has too many pixels for `--max-pixels` or for its file.

    Whatever reads pixels calls this first: with the size that a header states, and again for every
    frame that may differ. The other arguments are those of `justified_pixels`.
    """
    check_pixels(height, width, where)
    if height * width > justified_pixels(stored, bits, limited):
        raise BlurkitError(
            f"{where}: claims {width}x{height} pixels, which a file of {stored} bytes cannot hold; "
            "if it is whole, save it with less compression"
        )


def refuse_missing(files: Iterable[str | Path | None], what: str = "checkpoint") -> None:
    """Raise BlurkitError for a file that does not exist, before torch is imported for it."""
    for file in files:
        try:
            if file not in (None, "-"):
                os.lstat(file)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise BlurkitError(f"{file}: no such {what}") from error
        except OSError:  # of which whoever opens the file will speak
            continue
