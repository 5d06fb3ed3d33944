"""An image's role, split, sequence and name, from its path alone; parts of the work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from blurkit.errors import UsageError
from blurkit.io.paths import composed, normal

_Item = TypeVar("_Item")

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

_SPLIT_FOLDER = re.compile(rf"(?:.+[-_ .])?({'|'.join(SPLITS)})(?:[-_ ]?(?:set|data))?")

FOLDER_NAME = "folder name"
"""The source of a split that no list file states."""


@dataclass(frozen=True)
class Layout:
    """How a dataset names its files.

    `path` is found in the path of its blurred images, from the folder's own name on; `blur` and
    `sharp` are its names of the folders of either role, beside the usual ones: regular expressions,
    like `path`. `listed` means that list files, not folders, state its splits.
    """

    name: str
    path: str
    blur: tuple[str, ...] = ()
    sharp: tuple[str, ...] = ()
    listed: bool = False


LAYOUTS = (
    Layout("GoPro", r"GOPR\d{4}_\d\d_\d\d"),
    Layout("RealBlur", r"RealBlur", listed=True),
    # RSBlur, and GoPro_INTER_ABME and GoPro_U of the same authors: SCENE/N/{real_blur,gt}/...
    Layout(
        *("RSBlur", r"RSBlur|/real_blur/"),
        blur=("real_blur", "avg_inter", "avg", r"avg\d+", r"oracle_avg\d+", "centroid_blurred"),
        listed=True,
    ),
    Layout("REDS", r"(train|val|test)_blur"),
)
"""The datasets that are recognised by name, the first that fits; others are pairs or photos."""

BLUR_WORDS = (
    *("blur", "blurry", "blurred", "input", "source", "lq"),
    *(w for k in LAYOUTS for w in k.blur),
)
SHARP_WORDS = (
    *("sharp", "target", "gt", "hq", "groundtruth", "clean"),
    *(w for k in LAYOUTS for w in k.sharp),
)

NEUTRAL_ENDINGS = ("", "imgs", "images", "img", "image", "crops")
"""Endings of a role folder's name that do not mean a variant of the blur, by preference."""

GOPRO_SEQUENCE = re.compile(LAYOUTS[0].path)

ROLE_FOLDER = re.compile(
    rf"(?:(?P<split>train|val|test)_)?"
    rf"(?P<folder>(?:(?P<blur>{'|'.join(BLUR_WORDS)})|(?:{'|'.join(SHARP_WORDS)}))"
    rf"(?:_(?P<variant>.+))?)"
)

ARCHIVE_SUFFIX = re.compile(r"\.(?:lmdb|tar)$", re.IGNORECASE)
"""The suffix of an archive, which is read as a folder."""


@dataclass(frozen=True)
class Place:
    """The meaning of a file's path in a dataset.

    `train/train_blur_jpeg/000/00000000.jpg` has role `blur`, folder `blur_jpeg`, variant `jpeg`,
    split `train`, folders `("000",)` and stem `00000000`.
    """

    path: Path
    stem: str
    folders: tuple[str, ...]
    role: str | None = None
    folder: str = ""
    variant: str = ""
    split: str | None = None

    @property
    def name(self) -> str:
        """The path without role folder, split folder and suffix."""
        return "/".join((*self.folders, self.stem))

    @property
    def sequence(self) -> str | None:
        """The folders of `name`, or None if there are none."""
        return "/".join(self.folders) or None

    @property
    def key(self) -> tuple[str | None, tuple[str, ...], str]:
        """What partners have in common: `blur/blur_1.png` and `gt/gt_1.png` are both `1`."""
        return self.split, self.folders, self.stem.removeprefix(f"{self.folder}_")


@dataclass(frozen=True)
class Scene:
    """The image files of one record by role, e.g. `blur` and `sharp`, not opened yet.

    `split_source` is the list file that the split comes from; otherwise a folder's name states it.
    """

    name: str
    files: dict[str, Path]
    split: str | None = None
    sequence: str | None = None
    split_source: str = FOLDER_NAME

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, by which it can be told from other scenes."""
        return tuple(self.files.values())


@dataclass
class Found(Generic[_Item]):
    """What some inputs hold: items that are not opened yet, and what was skipped and why.

    `layouts` describe the folders in words. `left_out` are inputs and files, each with the reason.
    `unmatched` describes list files that are about a folder but name none of its images. `results`
    are files that commands wrote beside others. Items can be pickled and loaded anywhere.
    """

    items: list[_Item] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)


def locate(path: Path, parts: tuple[str, ...], blur: str = "blur") -> Place:
    """Return the place of `path`, whose folders and file name below the dataset's root are `parts`.

    `blur` is the folder chosen as the blurred one. Roles are recognised only by whole folder names,
    starting with the deepest, so that `train_blur_comp` is a variant and never `train_blur`. Names
    are in Unicode's composed form.
    """
    *folders, file = map(composed, parts)
    role, folder, variant, split = None, "", "", None
    for index in reversed(range(len(folders))):
        text = folders[index].lower()
        match = ROLE_FOLDER.fullmatch(text)
        if match is None and text != blur.lower():
            continue
        if match is None:
            role, folder = "blur", text
        else:
            role = "blur" if match["blur"] else "sharp"
            folder, variant, split = match["folder"], match["variant"] or "", match["split"]
        del folders[index]
        break
    split = take_split(folders) or split
    return Place(path, Path(file).stem, tuple(folders), role, folder, variant, split)


def take_split(folders: list[str]) -> str | None:
    """Return the split that one of `folders` is named after; a plain `train` or `test` is removed.

    A folder such as `GoPro_test` stays, because its name says more than the split.
    """
    for index, text in enumerate(folders):
        if text.lower() in SPLITS:
            return SPLITS[folders.pop(index).lower()]
    return next(filter(None, map(split_of_folder, folders)), None)


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder is named after: `Test`, `testset`, `GoPro_test`."""
    match = _SPLIT_FOLDER.fullmatch(name.lower())
    return SPLITS[match[1]] if match else None


def place_below(path: Path, root: Path, blur: str = "blur") -> Place:
    """Return `locate`'s place for a file below `root`, completed from the names of `root`.

    `root` may be a split, a sequence of GoPro, or a role folder in one of these. An image that is
    named after nothing but its role, like `0001/000422/gt/gt_sharp.png`, gets its folder's name.
    """
    *folders, file = path.relative_to(root).parts
    place = locate(path, (*(ARCHIVE_SUFFIX.sub("", folder) for folder in folders), file), blur)
    top = normal(root)
    if place.role and GOPRO_SEQUENCE.fullmatch(top.name):
        place = replace(place, folders=(top.name, *place.folders))
    if place.role:
        place = _outside_archives(place, [f for f in folders if ARCHIVE_SUFFIX.search(f)])
    if _says_only_its_role(place):
        *above, stem = place.folders or (composed(top.name),)
        place = replace(place, stem=stem, folders=tuple(above))
    return place if place.split else replace(place, split=split_of_root(root))


def _outside_archives(place: Place, archives: Sequence[str]) -> Place:
    """Return a place without archives that are named after a role, since its own keys state it.

    In `train_blur.lmdb/000/blur/1.png`, the archive still states the split.
    """
    for archive in archives:
        name = ARCHIVE_SUFFIX.sub("", archive)
        if name in place.folders and (match := ROLE_FOLDER.fullmatch(name.lower())):
            folders = tuple(folder for folder in place.folders if folder != name)
            place = replace(place, folders=folders, split=place.split or match["split"])
    return place


def _says_only_its_role(place: Place) -> bool:
    """Return whether a stem has only the words of its folder and its role: `gt/gt_sharp.png`."""
    stem, folder = place.stem.lower().split("_"), place.folder.split("_")
    words = {*folder, "avg", *(BLUR_WORDS if place.role == "blur" else SHARP_WORDS)}
    return place.role is not None and stem[0] in place.folder and words.issuperset(stem)


def split_of_root(root: Path) -> str | None:
    """Return the split that the folder `root`, or the one it is in or links to, is named after."""
    for top in dict.fromkeys((normal(root), root.resolve())):
        role = ROLE_FOLDER.fullmatch(top.name.lower())
        if role:
            top = top.parent
        sequence = GOPRO_SEQUENCE.fullmatch(top.name)
        name = top.parent.name if sequence else top.name
        split = (role and role["split"]) or split_of_folder(name)
        if split:
            return split
    return None


def unique_names(found: Sequence[tuple[str | None, str]]) -> list[str]:
    """Return a name for each (split, name), prefixed with the split if splits share names.

    Names are shared if they or their sequences are equal. REDS numbers the clips of train and val
    in the same way, so its names become `train/000/00000000`; GoPro's sequences differ, so its
    names are `GOPR0384_11_00/000001` from any of its folders.
    """
    splits: dict[str, str | None] = {}
    shared = any(
        splits.setdefault(name.rpartition("/")[0] or name, split) != split for split, name in found
    )
    return [f"{split}/{name}" if shared and split else name for split, name in found]


def free_name(name: str, source: Path, taken: set[str]) -> str | None:
    """Return `name`, or `name` below the folder of its `source`, whichever is not `taken`.

    The returned name is added to `taken`. Returns None if both are taken.
    """
    folder = source.absolute() if source.is_dir() else source.absolute().parent
    free = next((n for n in (name, f"{folder.name}/{name}") if n not in taken), None)
    if free is not None:
        taken.add(free)
    return free


# ---- Parts of the work ---------------------------------------------------------------------------

WorkPart = tuple[int, int]
"""The number of a part, from 1, and the number of parts."""

WHOLE: WorkPart = (1, 1)
"""All of the work."""


def in_part(name: str, part: WorkPart) -> bool:
    """Return whether the record `name` belongs to `part`.

    This depends on nothing but the name, so machines agree even if they list different files.
    """
    number, parts = part
    digest = hashlib.blake2b(
        composed(name).encode(errors="surrogateescape"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big") % parts == number - 1


def shard_prefix(part: WorkPart) -> str:
    """Return what the names of a part's shards begin with after their split, `p2of8-`."""
    return "" if part == WHOLE else f"p{part[0]}of{part[1]}-"


def parse_part(text: str) -> WorkPart:
    """Return `2/8` as (2, 8), the second of eight parts. Raises UsageError for anything else."""
    first, slash, parts = text.partition("/")
    if not (slash and first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise UsageError(
            f"--part {text}: write I/N with I from 1 to N, such as 2/8, or auto in a cluster's job"
        )
    return int(first), int(parts)


def part_of_job(environment: Mapping[str, str]) -> tuple[WorkPart, str]:
    """Return the part of this process in a cluster's job, and the variables that state it.

    Raises UsageError if no cluster's variables are set, or if they make no sense.
    """
    for names in SCHEDULERS:
        if names[0] not in environment:
            continue
        stated = ", ".join(f"{n}={environment[n]}" for n in names if n in environment)
        try:
            offset = [int(environment.get(n, d)) for n, d in zip(names[2:], "01", strict=False)]
            first, step = offset or (0, 1)
            index, rest = divmod(int(environment[names[0]]) - first, step)
            parts = int(environment[names[1]])
        except KeyError as missing:
            raise UsageError(f"--part auto: {stated}, but {missing.args[0]} is not set") from None
        except (ValueError, ZeroDivisionError):
            index = rest = parts = -1
        if rest or not 0 <= index < parts:
            raise UsageError(f"--part auto: {stated} is not one of evenly spaced parts")
        return (index + 1, parts), stated
    known = ", ".join(names[0] for names in SCHEDULERS)
    raise UsageError(f"--part auto: none of {known} is set; write I/N, such as 2/8")


SCHEDULERS = (
    ("RANK", "WORLD_SIZE"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
    tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP")),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
"""The variables of torchrun, Kubernetes, SLURM's arrays and SLURM's tasks that state a part.

They are its index and the number of parts; ids in an array may start and step anywhere.
"""
