"""Dataset layouts: which files below a folder belong together, determined by their paths alone.

One rule reads every layout: two images are a pair if their paths below the root are equal without
the role folder (`blur`, `sharp`, `train_blur`, `input`, `target`, `gt`, ...) and the suffix. Their
positions in a listing never matter. One rule names every scene: its name is the blurred file's path
below the root without role folder, split folder and suffix; if two splits share a sequence or name,
every name starts with its split.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blurkit.data.archives import image_files
from blurkit.data.lists import read_lists
from blurkit.data.places import LAYOUTS, NEUTRAL_ENDINGS, Place, Scene, place_below
from blurkit.data.splits import Images, listed_pairs, select, split_by_lists
from blurkit.errors import BlurkitError
from blurkit.io.paths import names_below, without_results


@dataclass
class Scenes:
    """The content of a folder: its layout in words, its scenes, and what was skipped and why.

    `unmatched` describes list files that are about this folder but name none of its images, and
    `loops` are links to folders above them, which are not followed.
    """

    layout: str
    scenes: list[Scene] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)


def find_scenes(
    root: Path, blur: str = "blur", lists: Sequence[Path] | None = (), unpaired_as: str = "blur"
) -> Scenes:
    """Find the scenes below `root`: a dataset, one of its splits, a GoPro sequence, or photos.

    `blur` is the folder of blurred images if there are several, e.g. `blur_gamma` (GoPro),
    `blur_jpeg` (REDS, also written `train_blur_jpeg`); the sharp images of a variant `blur_x` are
    in `sharp_x` if that exists. `lists` are list files that select scenes. List files inside or
    beside `root` only define splits, see `split_by_lists`; None means that they are not read. If no
    photo has a partner, all get the role `unpaired_as`.

    No image is opened. Results that commands wrote next to their source (photo.deblurred.jpg) are
    skipped; images without a partner and ambiguous names are listed in `left_out`. Raises
    BlurkitError if `root` cannot be read, if it has blurred folders but not the chosen one, and for
    `lists` as `read_lists` does.
    """
    blur = blur.lower()
    for split in ("train_", "val_", "test_"):
        blur = blur.removeprefix(split)
    listed = read_lists(lists or ())
    loops: list[Path] = []
    files = without_results(image_files(root, loops.append))
    images = Images(root, files, blur)
    if listed and all(line.files for line in listed):
        found = Scenes("list files", listed_pairs(listed, images, blur))
    else:
        found = _tree_scenes(root, files, blur, unpaired_as)
        found.layout += ", by list" if listed else ""
    if listed:
        assigned = select(found.scenes, listed, images)
    else:
        assigned = split_by_lists(
            found.scenes, images, found.layout, read=lists is not None and root.is_dir()
        )
    found.scenes = _named(assigned.scenes, found.left_out)
    found.left_out += assigned.left_out
    found.loops = loops
    found.unmatched = assigned.unmatched
    listed_layout = any(k.listed and found.layout.startswith(k.name) for k in LAYOUTS)
    if listed_layout and any(scene.split is None for scene in found.scenes):
        found.layout += " without its list files: test images are used for training"
    return found


# ---- trees --------------------------------------------------------------------------------------


def _tree_scenes(root: Path, files: Sequence[Path], blur: str, unpaired_as: str) -> Scenes:
    places = [place_below(path, root, blur) for path in files]
    blurred = _chosen_blur([p for p in places if p.role == "blur"], blur)
    sharp = _chosen_sharp([p for p in places if p.role == "sharp"], blur)
    hide = False
    if sharp and not blurred:
        others = sorted({p.folder for p in places if p.role == "blur"})
        if others:
            choices = " or ".join(f"--blur {name}" for name in others)
            raise BlurkitError(f"{root}: has no folder {blur!r}; choose {choices}")
        hide = {(place.folder, place.folders) for place in sharp} == {("gt", sharp[0].folders)}
        blurred, sharp = _hide(places, sharp) if hide else ([], sharp)
    if not (sharp and blurred):
        return _photos(places, root, unpaired_as)
    layout = _layout(root, blurred, "HIDE" if hide else "pairs", sharp)
    scenes, left_out = _paired(blurred, sharp)
    used = {place.path for place in blurred}
    strays = Counter(p.path.parent for p in places if p.role is None and p.path not in used)
    left_out += [(str(f), f"{n} images, neither blurred nor sharp") for f, n in strays.items()]
    return Scenes(layout, scenes, left_out)


def _chosen_blur(blurred: list[Place], blur: str) -> list[Place]:
    if blur != "blur":
        return [place for place in blurred if place.folder == blur]
    return _plainest(blurred)


def _chosen_sharp(sharp: list[Place], blur: str) -> list[Place]:
    variant = blur.partition("_")[2]
    same = [place for place in sharp if variant and place.variant == variant]
    return same or _plainest(sharp)


def _plainest(places: list[Place]) -> list[Place]:
    """Return, per split, the images in folders without a variant: `input`, else `input_crops`."""
    best: dict[str | None, int] = {}
    for place in places:
        if place.variant in NEUTRAL_ENDINGS:
            rank = NEUTRAL_ENDINGS.index(place.variant)
            best[place.split] = min(rank, best.get(place.split, rank))
    return [
        p
        for p in places
        if p.variant in NEUTRAL_ENDINGS and NEUTRAL_ENDINGS.index(p.variant) == best[p.split]
    ]


def _hide(places: list[Place], sharp: list[Place]) -> tuple[list[Place], list[Place]]:
    """Return HIDE's images: blurred ones in split folders, and all sharp ones in one folder `GT`.

    A sharp image gets the split and folders of the blurred image of the same name. If only one
    split is present, the sharp images of the other are skipped.
    """
    blurred = [replace(p, role="blur") for p in places if p.role is None and p.split]
    by_stem = {place.stem: place for place in blurred}
    if len({place.split for place in blurred}) == 1:
        sharp = [place for place in sharp if place.stem in by_stem]
    elsewhere = Place(Path(), "", (), split="test")
    moved = []
    for place in sharp:
        partner = by_stem.get(place.stem, elsewhere)
        moved.append(replace(place, split=partner.split, folders=partner.folders))
    return blurred, moved


def _paired(blurred: list[Place], sharp: list[Place]) -> tuple[list[Scene], list[tuple[str, str]]]:
    """Return the scenes with equal keys, and the images without a partner or with several.

    A split that lacks one role entirely, like REDS's test split, is valid: its scenes hold only the
    other role.
    """
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
        missing = [role for role in roles if role not in sides and place.split in splits[role]]
        same = [str(p.path) for places in sides.values() if len(places) > 1 for p in places]
        if same:
            left_out.append((same[0], f"ambiguous images: {', '.join(same)}"))
        elif missing:
            left_out.append((str(place.path), f"has no {missing[0]} partner"))
        else:
            scenes.append(Scene(place.name, files, place.split, place.sequence))
    return scenes, left_out


def _photos(places: list[Place], root: Path, role: str) -> Scenes:
    scenes = []
    names = names_below(root, [place.path for place in places])
    for name, place in zip(names, places, strict=True):
        scenes.append(Scene(name, {role: place.path}, place.split, name.rpartition("/")[0] or None))
    return Scenes("photos", scenes)


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
            files, others = next(iter(scene.files.values())), next(iter(first.files.values()))
            left_out.append((str(files), f"its name {scene.name!r} is taken by {others}"))
    return list(taken.values())
