"""An image's role, split, sequence and name, from its path alone; parts of the work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar

from blurkit.errors import BlurkitError, OnError, UsageError
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
    """How a dataset names its files, in regular expressions.

    `path` is found in the path of its blurred images, from the folder's own name on; `blur` and
    `sharp` are unusual names of the folders of either role; `listed`: list files state its splits.
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

    `train/train_blur_jpeg/000/00000000.jpg` has stem `00000000`, folders `("000",)`, role `blur`,
    folder `blur_jpeg`, variant `jpeg` and split `train`.
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
    """What some inputs hold: items, not opened yet, that can be pickled, and what was skipped.

    `layouts` describe the folders in words. `left_out` are inputs and files, each with the reason.
    `unmatched` describes list files that are about a folder but name none of its images. `results`
    are files that commands wrote beside others.
    """

    items: list[_Item] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)

    def report(self, on_error: OnError) -> None:
        """Report what is `left_out` to `on_error`."""
        for where, reason in self.left_out:
            on_error(where, BlurkitError(reason))


def locate(path: Path, parts: tuple[str, ...], blur: str = "blur") -> Place:
    """Return the place of `path`, whose folders and file name below the dataset's root are `parts`.

    The deepest folder whose whole name is that of a role, or `blur`, the one chosen as the blurred
    one, states the role. Names are in Unicode's composed form.
    """
    *folders, file = map(composed, parts)
    role, folder, variant, split = None, "", "", None
    for index in reversed(range(len(folders))):
        text = folders[index].lower()
        if match := ROLE_FOLDER.fullmatch(text):
            role = "blur" if match["blur"] else "sharp"
            folder, variant, split = match["folder"], match["variant"] or "", match["split"]
        elif text == blur.lower():
            role, folder = "blur", text
        if role:
            del folders[index]
            break
    split = take_split(folders) or split
    return Place(path, Path(file).stem, tuple(folders), role, folder, variant, split)


def take_split(folders: list[str]) -> str | None:
    """Return the split that one of `folders` names; `test` is removed, `GoPro_test` says more."""
    for index, text in enumerate(folders):
        if text.lower() in SPLITS:
            return SPLITS[folders.pop(index).lower()]
    return next(filter(None, map(split_of_folder, folders)), None)


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder is named after: `Test`, `testset`, `GoPro_test`."""
    match = _SPLIT_FOLDER.fullmatch(name.lower())
    return SPLITS[match[1]] if match else None


def place_below(path: Path, root: Path, blur: str = "blur") -> Place:
    """Return `locate`'s place for a file below `root`: a dataset, a split, a sequence or a role.

    An image that says only its role, such as `0001/000422/gt/gt_sharp.png`, gets its folder's name.
    """
    *folders, file = path.relative_to(root).parts
    place = locate(path, (*(ARCHIVE_SUFFIX.sub("", folder) for folder in folders), file), blur)
    top = normal(root)
    if place.role and GOPRO_SEQUENCE.fullmatch(top.name):
        place = replace(place, folders=(top.name, *place.folders))
    for archive in filter(ARCHIVE_SUFFIX.search, folders if place.role else ()):
        # In train_blur.lmdb/000/blur/1.png, the key states the role, and the archive the split.
        name = ARCHIVE_SUFFIX.sub("", archive)
        if name in place.folders and (match := ROLE_FOLDER.fullmatch(name.lower())):
            rest = tuple(folder for folder in place.folders if folder != name)
            place = replace(place, folders=rest, split=place.split or match["split"])
    if _says_only_its_role(place):
        *above, stem = place.folders or (composed(top.name),)
        place = replace(place, stem=stem, folders=tuple(above))
    return place if place.split else replace(place, split=split_of_root(root))


def _says_only_its_role(place: Place) -> bool:
    """Return whether a stem has only the words of its folder and its role: `gt/gt_sharp.png`."""
    stem, folder = place.stem.lower().split("_"), place.folder.split("_")
    words = {*folder, "avg", *(BLUR_WORDS if place.role == "blur" else SHARP_WORDS)}
    return place.role is not None and stem[0] in place.folder and words.issuperset(stem)


def split_of_root(root: Path) -> str | None:
    """Return the split that the folder `root`, or the one it is in or links to, is named after."""
    for top in dict.fromkeys((normal(root), root.resolve())):
        if role := ROLE_FOLDER.fullmatch(top.name.lower()):
            top = top.parent
        top = top.parent if GOPRO_SEQUENCE.fullmatch(top.name) else top
        if split := (role and role["split"]) or split_of_folder(top.name):
            return split
    return None


def unique_names(found: Sequence[tuple[str | None, str]]) -> list[str]:
    """Return a name for each (split, name), with the split if splits share a name or a sequence.

    REDS numbers the clips of train and val in the same way, so its names become
    `train/000/00000000`; GoPro's are `GOPR0384_11_00/000001` from any of its folders.
    """
    splits: dict[str, str | None] = {}
    shared = any(
        splits.setdefault(name.rpartition("/")[0] or name, split) != split for split, name in found
    )
    return [f"{split}/{name}" if shared and split else name for split, name in found]


def free_name(name: str, source: Path, taken: set[str]) -> str | None:
    """Add to `taken` and return `name`, or `name` below its source's folder; None if both are."""
    folder = source.absolute() if source.is_dir() else source.absolute().parent
    for free in (name, f"{folder.name}/{name}"):
        if free not in taken:
            taken.add(free)
            return free
    return None


# ---- Parts of the work ---------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkPart:
    """One of `count` parts of the work, its `number` from 1; in text `2/8`.

    `name in part` says whether a record belongs to it: by the place of its name in `ranks`, so that
    parts differ by one record at most, or else by nothing but the name, so that machines agree even
    if they list different files.
    """

    number: int
    count: int
    ranks: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def among(self, names: Iterable[str]) -> WorkPart:
        """Return this part of records that have these names and no others."""
        ordered = sorted({composed(name) for name in names})
        return replace(self, ranks={name: rank for rank, name in enumerate(ordered)})

    def __contains__(self, name: str) -> bool:
        name = composed(name)
        if (rank := self.ranks.get(name)) is None:
            digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
            rank = int.from_bytes(digest, "big")
        return rank % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def prefix(self) -> str:
        """What the names of a part's shards begin with after their split, `p2of8-`."""
        return "" if self == WHOLE else f"p{self.number}of{self.count}-"

    def fill(self, text: str) -> str:
        """Return a text with `2of8` for `{part}`, with zeros (`02of12`) so that names sort."""
        return text.replace("{part}", f"{self.number:0{len(str(self.count))}}of{self.count}")


WHOLE = WorkPart(1, 1)
"""All of the work."""


def parse_part(text: str) -> WorkPart:
    """Return `2/8` as the second of eight parts. Raises UsageError for anything else."""
    first, slash, parts = text.partition("/")
    if not (slash and first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise UsageError(
            f"--part {text}: write I/N with I from 1 to N, such as 2/8, or in a cluster's job auto "
            "or auto/N"
        )
    return WorkPart(int(first), int(parts))


def array_of(numbers: Iterable[int]) -> str:
    """Return numbers as job arrays name them: 1, 2, 3 and 7 are `1-3,7`."""
    following = groupby(enumerate(sorted(numbers)), lambda placed: placed[1] - placed[0])
    runs = [[number for _, number in run] for _, run in following]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def part_of_job(environment: Mapping[str, str], count: int | None = None) -> tuple[WorkPart, str]:
    """Return the part of this process in a cluster's job, and the variables that state it.

    Without `count`, the parts are those of the whole job; ids in an array may start and step
    anywhere. With it, so that any task can be started again, tasks of an array are numbered from 1
    to `count`, and 0 means `count`. Raises UsageError if variables are missing or make no sense.
    """
    for job in SCHEDULERS:
        if environment.get(job.index, job.absent) == job.absent:
            continue
        names = (job.index, job.count, job.last, job.first, job.step)
        stated = ", ".join(f"{n}={environment[n]}" for n in names if n in environment)
        try:
            number, parts = _place(job, environment, count)
        except KeyError:
            few = "does not say of how many parts"
            raise UsageError(f"--part auto: {stated} {few}; write auto/N") from None
        except (ValueError, ZeroDivisionError):
            number = parts = 0
        if not 1 <= number <= parts:
            what = "evenly spaced parts" if count is None else f"{count} parts"
            raise UsageError(f"--part auto: {stated} is not one of {what}")
        return WorkPart(number, parts), stated
    known = ", ".join(job.index for job in SCHEDULERS)
    raise UsageError(f"--part auto: none of {known} is set; write I/N, such as 2/8")


def _place(job: Scheduler, environment: Mapping[str, str], count: int | None) -> tuple[int, int]:
    """Return the number of a task, 0 if it is between two steps, and the number of tasks."""

    def value(text: str) -> int:
        return int(text if text.isdecimal() else environment[text])

    index = value(job.index)
    if count is not None:
        return (index + 1 if job.first == "0" else index or count), count
    first, step = value(job.first), value(job.step)
    parts = value(job.count) if job.count else (value(job.last) - first) // step + 1
    number, rest = divmod(index - first, step)
    return 0 if rest else number + 1, parts


@dataclass(frozen=True)
class Scheduler:
    """The variables of a cluster, or numbers, of a task's index and the number of tasks.

    If there is no `count`, it follows from the `last` index. An index of the value `absent` means
    that the job has no tasks.
    """

    index: str
    count: str = ""
    first: str = "0"
    step: str = "1"
    last: str = ""
    absent: str = ""


SCHEDULERS = (
    Scheduler("RANK", "WORLD_SIZE"),  # torchrun
    Scheduler("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),  # Kubernetes, which sets the first only
    Scheduler(*(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP"))),
    Scheduler("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    Scheduler("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    Scheduler("BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),  # Google Cloud Batch
    Scheduler("PBS_ARRAY_INDEX", first="1"),
    Scheduler("PBS_ARRAYID", first="1"),  # Torque
    Scheduler(
        "LSB_JOBINDEX", first="1", step="LSB_JOBINDEX_STEP", last="LSB_JOBINDEX_END", absent="0"
    ),
    Scheduler(
        *("SGE_TASK_ID", "", "SGE_TASK_FIRST", "SGE_TASK_STEPSIZE", "SGE_TASK_LAST", "undefined")
    ),
    Scheduler("SLURM_PROCID", "SLURM_NTASKS"),  # srun
)
"""The clusters whose variables `--part auto` knows; the first that states an index is used."""
