"""Dataset layouts: which files below a folder belong together, determined by their paths alone.

One rule reads every layout: two images are a pair if their paths below the root are equal without
the role folder (`blur`, `sharp`, `train_blur`, `input`, `target`, `gt`, ...) and the suffix. Their
positions in a listing never matter. One rule names every scene: its name is the blurred file's path
below the root without role folder, split folder and suffix, made unique by `unique_names`.

Archives (LMDB of BasicSR, tar files of WebDataset) are read as the folders that they stand for.
"""

import io
import os
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from blurkit.data.lists import (
    Images,
    listed_pairs,
    pairs_listed_near,
    read_lists,
    select,
    split_by_lists,
)
from blurkit.data.places import (
    LAYOUTS,
    NEUTRAL_ENDINGS,
    ROLE_FOLDER,
    SPLITS,
    Found,
    Place,
    Scene,
    place_below,
)
from blurkit.errors import BlurkitError, one_line
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import IMAGE_SUFFIXES, is_image
from blurkit.io.images import Picture, decode_image, read_image
from blurkit.io.paths import names_below, natural_key, reading_errors, walk, without_results
from blurkit.io.records import safe_name


def find_scenes(
    root: Path, blur: str = "blur", lists: Sequence[Path] | None = (), unpaired_as: str = "blur"
) -> Found[Scene]:
    """Find the scenes below `root`: a dataset, one of its splits, a GoPro sequence, or photos.

    `blur` is the folder of blurred images if there are several, e.g. `blur_gamma` (GoPro),
    `blur_jpeg` (REDS, also written `train_blur_jpeg`); the sharp images of a variant `blur_x` are
    in `sharp_x` if that exists. `lists` are list files that select scenes. List files inside or
    beside `root` only define splits, see `split_by_lists`; None means that they are not read. If no
    photo has a partner, all get the role `unpaired_as`.

    No image is opened. The first of `layouts` describes the folder; the others are links that are
    not followed. Images without a partner, ambiguous names and what is not a regular file are in
    `left_out`. Raises BlurkitError if `root` cannot be read, if it has blurred folders but not the
    chosen one, and for `lists` as `read_lists` does.
    """
    blur = re.sub("^(train_)?(val_)?(test_)?", "", blur.lower())
    listed = read_lists(lists or ())
    skipped: dict[Path, str] = {}
    everything = image_files(root, skipped.__setitem__)
    files = without_results(everything)
    images = Images(root, files, blur)
    if listed and all(line.files for line in listed):
        found = Found(listed_pairs(listed, images, blur), ["list files"])
    else:
        found = _tree_scenes(root, files, blur, unpaired_as)
        unpaired = root.is_dir() and all(len(scene.files) < 2 for scene in found.items)
        if lists is not None and unpaired and (pairs := pairs_listed_near(images, blur)):
            found = Found(pairs, ["pairs of its list files"])
        found.layouts[0] += ", by list" if listed else ""
    if listed:
        assigned = select(found.items, listed, images)
    else:
        reads = lists is not None and root.is_dir()
        assigned = split_by_lists(found.items, images, found.layouts[0], read=reads)
    found.items = _named(assigned.items, found.left_out)
    found.left_out += assigned.left_out
    found.unmatched = assigned.unmatched
    found.results = sorted({*everything}.difference(files))
    listed_layout = any(k.listed and found.layouts[0].startswith(k.name) for k in LAYOUTS)
    if listed_layout and any(scene.split is None for scene in found.items):
        found.layouts[0] += " without its list files: test images are used for training"
    for path, reason in skipped.items():
        if path.is_dir():
            found.layouts.append(f"{path}: {reason}")
        else:
            found.left_out.append((str(path), reason))
    return found


# ---- trees ---------------------------------------------------------------------------------------


def _tree_scenes(root: Path, files: Sequence[Path], blur: str, unpaired_as: str) -> Found[Scene]:
    places = [place_below(path, root, blur) for path in files]
    blurred = [p for p in places if p.role == "blur"]
    blurred = [p for p in blurred if p.folder == blur] if blur != "blur" else _plainest(blurred)
    variant, sharp = blur.partition("_")[2], [p for p in places if p.role == "sharp"]
    sharp = [p for p in sharp if variant and p.variant == variant] or _plainest(sharp)
    hide = False
    if sharp and not blurred:
        if others := sorted({p.folder for p in places if p.role == "blur"}):
            choices = " or ".join(f"--blur {name}" for name in others)
            raise BlurkitError(f"{root}: has no folder {blur!r}; choose {choices}")
        hide = {(place.folder, place.folders) for place in sharp} == {("gt", sharp[0].folders)}
        blurred, sharp = _hide(places, sharp) if hide else ([], sharp)
    if not (sharp and blurred):
        scenes = [
            Scene(name, {unpaired_as: place.path}, place.split, name.rpartition("/")[0] or None)
            for name, place in zip(names_below(root, files), places, strict=True)
        ]
        return Found(scenes, ["photos"])
    layout = _layout(root, blurred, "HIDE" if hide else "pairs", sharp)
    scenes, left_out = _paired(blurred, sharp)
    used = {place.path for place in blurred}
    strays = Counter(p.path.parent for p in places if p.role is None and p.path not in used)
    left_out += [(str(f), f"{n} images, neither blurred nor sharp") for f, n in strays.items()]
    return Found(scenes, [layout], left_out)


def _plainest(places: list[Place]) -> list[Place]:
    """Return, per split, the images in folders without a variant: `input`, else `input_crops`."""
    neutral = [place for place in places if place.variant in NEUTRAL_ENDINGS]
    best: dict[str | None, str] = {}
    for place in sorted(neutral, key=lambda place: NEUTRAL_ENDINGS.index(place.variant)):
        best.setdefault(place.split, place.variant)
    return [place for place in neutral if place.variant == best[place.split]]


def _hide(places: list[Place], sharp: list[Place]) -> tuple[list[Place], list[Place]]:
    """Return HIDE's images: blurred ones in split folders, and all sharp ones in one folder `GT`.

    These get the split and folders of the blurred image of the same name. If only one split is
    present, those of the other are skipped.
    """
    blurred = [replace(p, role="blur") for p in places if p.role is None and p.split]
    by_stem = {place.stem: place for place in blurred}
    if len({place.split for place in blurred}) == 1:
        sharp = [place for place in sharp if place.stem in by_stem]
    elsewhere = Place(Path(), "", (), split="test")
    partners = [(place, by_stem.get(place.stem, elsewhere)) for place in sharp]
    return blurred, [replace(p, split=other.split, folders=other.folders) for p, other in partners]


def _paired(blurred: list[Place], sharp: list[Place]) -> tuple[list[Scene], list[tuple[str, str]]]:
    """Return the scenes with equal keys, and the images without a partner or with several."""
    roles = {"blur": blurred, "sharp": sharp}
    splits = {role: {place.split for place in places} for role, places in roles.items()}
    by_key: dict[object, dict[str, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for role, places in roles.items():
        for place in places:
            by_key[place.key][role].append(place)
    scenes: list[Scene] = []
    left_out: list[tuple[str, str]] = []
    for sides in by_key.values():
        place = next(iter(sides.values()))[0]
        files = {role: places[0].path for role, places in sides.items()}
        # A split that lacks one role entirely, like REDS's test split, is valid.
        missing = [role for role in roles if role not in sides and place.split in splits[role]]
        same = [str(p.path) for places in sides.values() if len(places) > 1 for p in places]
        if same:
            left_out.append((same[0], f"ambiguous images: {', '.join(same)}"))
        elif missing:
            left_out.append((str(place.path), f"has no {missing[0]} partner"))
        else:
            scenes.append(Scene(place.name, files, place.split, place.sequence))
    return scenes, left_out


def _layout(root: Path, blurred: list[Place], kind: str, sharp: list[Place]) -> str:
    """Return the layout for users, with the folders that were used: `GoPro (blur, sharp)`."""
    path = f"{root.absolute().name}/{blurred[0].path.relative_to(root).as_posix()}"
    kind = next((known.name for known in LAYOUTS if re.search(known.path, path)), kind)
    folders = [sorted({p.folder for p in places if p.folder}) for places in (blurred, sharp)]
    return f"{kind} ({', '.join(folder for names in folders for folder in names)})"


def _named(scenes: Sequence[Scene], left_out: list[tuple[str, str]]) -> list[Scene]:
    """Return the scenes without a second one of the same name, which is added to `left_out`."""
    taken: dict[str, Scene] = {}
    for scene in scenes:
        first = taken.setdefault(scene.name, scene)
        if first.files != scene.files:
            reason = f"its name {scene.name!r} is taken by {first.paths[0]}"
            left_out.append((str(scene.paths[0]), reason))
    return list(taken.values())


def sharp_beside(folder: Path) -> Path | None:
    """Return the folder that is named as that of the sharp images of the blurred ones in `folder`.

    It is beside it or one of the two above: `gt` by `blur`, HIDE's `GT` by `test/test-close-ups`.
    """
    for blurred in (folder.absolute(), *folder.absolute().parents[:2]):
        role = ROLE_FOLDER.fullmatch(blurred.name.lower())
        if role and not role["blur"]:
            return None
        if not (role or blurred.name.lower() in SPLITS):
            continue
        for other in sorted(blurred.parent.iterdir()):
            named = ROLE_FOLDER.fullmatch(other.name.lower())
            wanted = named and (named["folder"] == "gt" if not role else not named["blur"])
            if wanted and other.is_dir():
                return other
    return None


# ---- Archives ------------------------------------------------------------------------------------

DATABASE, META = "data.mdb", "meta_info.txt"
"""The files of an LMDB folder: the images, and a line for each of them."""


def is_archive(path: Path) -> bool:
    """Return whether `path` is a tar file or the folder of an LMDB."""
    if path.suffix.lower() == ".tar":
        return path.is_file()
    return path.suffix.lower() == ".lmdb" and (path / DATABASE).is_file()


def image_files(root: Path, on_skip: Callable[[Path, str], None] = lambda *_: None) -> list[Path]:
    """Return every image and film in and below `root`, a folder or an archive, in natural order.

    `on_skip` is as for `walk`. Raises BlurkitError if a folder or an archive cannot be read.
    """
    suffixes, files = IMAGE_SUFFIXES | FILM_SUFFIXES, list[Path]()
    for path in [root] if is_archive(root) else walk(root, suffixes | {".tar", ".mdb"}, on_skip):
        archive = path.parent if path.name == DATABASE else path
        if is_archive(archive):
            tar = archive.suffix.lower() == ".tar"
            names = _tar_index(archive) if tar else _lmdb_index(archive)
            files += filter(is_image, (archive / safe_name(name) for name in names))
        elif path.suffix.lower() in suffixes:
            files.append(path)
    return sorted(files, key=lambda path: natural_key(path.relative_to(root)))


def read_picture(path: Path, decoded: bool = True) -> Picture:
    """Return the image in a file or in an archive, as `read_image` does."""
    archive = next((above for above in path.parents if is_archive(above)), None)
    if archive is None:
        return read_image(path, decoded)
    name = path.relative_to(archive).as_posix()
    data = (_tar_member if archive.suffix.lower() == ".tar" else _lmdb_value)(archive, name)
    return decode_image(io.BytesIO(data), path, decoded)


@lru_cache(maxsize=64)
def _tar_index(archive: Path) -> dict[str, tuple[int, int]]:
    """Return where each member's data starts and how long it is, in bytes."""
    index: dict[str, tuple[int, int]] = {}
    try:
        with reading_errors(archive), tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.isreg():
                    index[_as_path(member.name)] = member.offset_data, member.size
    except tarfile.TarError as error:
        reason = f"damaged or truncated after {len(index)} members ({one_line(error)})"
        raise BlurkitError(f"{archive}: {reason}") from error
    return index


def _as_path(member: str) -> str:
    """Return a/blur/0001.png for a/0001.blur.png, as WebDataset names an image, else `member`."""
    folder, _, file = member.removeprefix("./").rpartition("/")
    sample, *role, suffix = file.rsplit(".", 2)
    if role and ROLE_FOLDER.fullmatch(role[0].lower()):
        file = f"{role[0]}/{sample}.{suffix}"
    return f"{folder}/{file}" if folder else file


def _tar_member(archive: Path, name: str) -> bytes:
    offset, size = _tar_index(archive)[name]
    with reading_errors(archive), archive.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise BlurkitError(f"{archive / name}: truncated after {len(data)} of {size} bytes")
    return data


def _lmdb_index(archive: Path) -> list[str]:
    """Return the names in meta_info.txt; the keys are those without suffixes, each an image."""
    meta = archive / META
    try:
        lines = meta.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = f"{META} cannot be read ({one_line(error)}); BasicSR writes it beside {DATABASE}"
        raise BlurkitError(f"{archive}: {reason}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"(\S.*?) \(\d+,\d+,\d+\) \d+", line.strip())
        if match is None and line.strip():
            raise BlurkitError(
                f"{meta}: line {number} is {line[:60]!r}, not NAME.png (HEIGHT,WIDTH,3) LEVEL"
            )
        if match:
            names.setdefault(match[1].rpartition(".")[0], match[1])  # a key may be listed again
    return list(names.values())


def _lmdb_value(archive: Path, name: str) -> bytes:
    try:
        import lmdb
    except ImportError as error:
        reason = "reading it needs lmdb, which is not installed: pip install 'blurkit[lmdb]'"
        raise BlurkitError(f"{archive}: {reason}") from error
    key = name.rpartition(".")[0]
    try:
        with _opened(archive, os.getpid()).begin(buffers=False) as transaction:
            data = transaction.get(key.encode())
    except lmdb.Error as error:
        raise BlurkitError(f"{archive}: damaged ({one_line(error)})") from error
    if data is None:
        raise BlurkitError(f"{archive / name}: {META} names it, but {DATABASE} has no key {key!r}")
    return bytes(data)


@lru_cache(maxsize=16)
def _opened(archive: Path, process: int) -> Any:
    """Return the database, opened once by each process because none may use another's."""
    import lmdb

    return lmdb.open(str(archive), readonly=True, lock=False, readahead=False, meminit=False)
