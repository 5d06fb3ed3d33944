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

from blurkit.data.lists import Listed, read_lists
from blurkit.data.places import (
    GOPRO_SEQUENCE,
    LAYOUTS,
    NEUTRAL_ENDINGS,
    ROLE_FOLDER,
    SPLITS,
    Place,
    Scene,
    locate,
    unique_names,
)
from blurkit.errors import BlurkitError
from blurkit.io.images import IMAGE_SUFFIXES
from blurkit.io.paths import walk, without_results


@dataclass
class Scenes:
    """The content of a folder: its layout in words, its scenes, and what was skipped and why."""

    layout: str
    scenes: list[Scene] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def find_scenes(
    root: Path, blur: str = "blur", lists: Sequence[Path] = (), unpaired_as: str = "blur"
) -> Scenes:
    """Find the scenes below `root`: a dataset, one of its splits, a GoPro sequence, or photos.

    `blur` is the folder of blurred images if there are several, e.g. `blur_gamma` (GoPro),
    `blur_jpeg` (REDS, also written `train_blur_jpeg`); the sharp images of a variant `blur_x` are
    in `sharp_x` if that exists. `lists` are list files that select scenes; their paths are relative
    to `root`, its parent, or its `train` or `test` folder. RealBlur's own lists next to the data
    define the splits. If no photo has a partner, all get the role `unpaired_as`.

    No image is opened. Results that commands wrote next to their source (photo.deblurred.jpg) are
    skipped; images without a partner and ambiguous names are listed in `left_out`. Raises
    BlurkitError if `root` cannot be read, if it has blurred folders but not the chosen one, and for
    list files as `read_lists` does.
    """
    blur = blur.lower()
    for split in ("train_", "val_", "test_"):
        blur = blur.removeprefix(split)
    listed = read_lists(lists)
    if listed and all(line.selects is None for line in listed):
        found = _listed_scenes(listed, root, blur)
    else:
        found = _tree_scenes(root, blur, unpaired_as)
        if listed:
            found = _selected(found, listed, root)
    return _named(found)


# ---- trees --------------------------------------------------------------------------------------


def _tree_scenes(root: Path, blur: str, unpaired_as: str) -> Scenes:
    files = without_results(walk(root, IMAGE_SUFFIXES))
    places = [_place(path, root, blur) for path in files]
    blurred = _chosen_blur([p for p in places if p.role == "blur"], blur)
    sharp = _chosen_sharp([p for p in places if p.role == "sharp"], blur)
    hide = False
    if sharp and not blurred:
        others = sorted({p.folder for p in places if p.role == "blur"})
        if others:
            choices = " or ".join(f"--blur {name}" for name in others)
            raise BlurkitError(f"{root}: has no folder {blur!r}; choose {choices}")
        hide = all(place.folder == "gt" and not place.folders for place in sharp)
        blurred, sharp = _hide(places, sharp) if hide else ([], sharp)
    if not (sharp and blurred):
        return _photos(places, root, unpaired_as)
    layout = _layout(root, blurred, "HIDE" if hide else "pairs", sharp)
    scenes, left_out = _paired(blurred, sharp)
    if layout.startswith("RealBlur"):
        splits = _realblur_splits(root)
        scenes = [
            replace(scene, split=splits.get(scene.files["blur"].absolute(), scene.split))
            for scene in scenes
        ]
    used = {place.path for place in blurred}
    strays = Counter(p.path.parent for p in places if p.role is None and p.path not in used)
    left_out += [(str(f), f"{n} images, neither blurred nor sharp") for f, n in strays.items()]
    return Scenes(layout, scenes, left_out)


def _place(path: Path, root: Path, blur: str) -> Place:
    """Return `locate`'s place, completed from the names of `root` and its parent."""
    place = locate(path, path.relative_to(root).parts, blur)
    above = root.absolute()
    if place.role and GOPRO_SEQUENCE.fullmatch(above.name):
        place = replace(place, folders=(above.name, *place.folders))
        above = above.parent
    return replace(place, split=place.split or SPLITS.get(above.name.lower()))


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
    for place in places:
        below = place.path.relative_to(root)
        sequence = None if below.parent == Path() else below.parent.as_posix()
        scenes.append(
            Scene(below.with_suffix("").as_posix(), {role: place.path}, sequence=sequence)
        )
    return Scenes("photos", scenes)


def _layout(root: Path, blurred: list[Place], kind: str, sharp: list[Place]) -> str:
    """Return the layout for users, with the folders that were used: `GoPro (blur, sharp)`."""
    path = f"{root.absolute().name}/{blurred[0].path.relative_to(root).as_posix()}"
    kind = next((known.name for known in LAYOUTS if re.search(known.path, path)), kind)
    folders = [sorted({p.folder for p in places if p.folder}) for places in (blurred, sharp)]
    return f"{kind} ({', '.join(folder for names in folders for folder in names)})"


def _realblur_splits(root: Path) -> dict[Path, str | None]:
    """Return the split of each blurred file from the lists in `root` or its parent."""
    splits: dict[Path, str | None] = {}
    top = root.absolute()
    for folder in (top, top.parent):
        for path in folder.glob("RealBlur*list*.txt"):
            for line in read_lists([path]):
                splits[folder / line.files.get("blur", "")] = line.split
    return splits


# ---- list files ---------------------------------------------------------------------------------


def _listed_scenes(listed: list[Listed], root: Path, blur: str) -> Scenes:
    found = Scenes("list files")
    for line in listed:
        files: dict[str, Path] = {}
        for role, text in line.files.items():
            text = _in_folder(text, blur) if role == "blur" else text
            file = _resolve(text, root)
            if file is None:
                found.left_out.append((line.where, f"{text}: no such file below {root}"))
                break
            files[role] = file
        else:
            place = _listed_place(files["blur"], root, blur)
            split = line.split or place.split
            found.scenes.append(Scene(place.name, files, split, place.sequence))
    return found


def _selected(found: Scenes, listed: list[Listed], root: Path) -> Scenes:
    """Return the scenes that list lines select by sequence, file name, stem or path, in order."""
    index: dict[str, list[Scene]] = defaultdict(list)
    for scene in found.scenes:
        sequence = scene.sequence or ""
        keys = {scene.name, sequence, sequence.rpartition("/")[2]}
        for path in scene.files.values():
            keys |= {path.name, path.stem, str(path.absolute())}
        for key in keys:
            index[key].append(scene)
    selected: dict[str, Scene] = {}
    for line in listed:
        text = line.selects or line.files["blur"]
        file = _resolve(text, root)
        scenes = index.get(str(file.absolute()) if file else text, [])
        if not scenes:
            found.left_out.append((line.where, f"{text}: names no scene below {root}"))
        for scene in scenes:
            selected[str(scene.files)] = replace(scene, split=line.split or scene.split)
    return Scenes(f"{found.layout}, by list", list(selected.values()), found.left_out)


def _in_folder(text: str, blur: str) -> str:
    """Return a listed path with its blurred folder replaced by the chosen one."""
    parts = text.split("/")
    for index in reversed(range(len(parts) - 1)):
        match = ROLE_FOLDER.fullmatch(parts[index].lower())
        if blur != "blur" and match and match["blur"]:
            parts[index] = f"{match['split']}_{blur}" if match["split"] else blur
            break
    return "/".join(parts)


def _resolve(text: str, root: Path) -> Path | None:
    """Return the listed file, relative to `root`, its parent, or its `train` or `test` folder."""
    bases = (root, root.parent, root / "train", root / "test")
    return next((base / text for base in bases if (base / text).is_file()), None)


def _listed_place(path: Path, root: Path, blur: str) -> Place:
    bases = (root, root.parent, Path(path.anchor))
    return _place(path, next(base for base in bases if path.is_relative_to(base)), blur)


# ---- names --------------------------------------------------------------------------------------


def _named(found: Scenes) -> Scenes:
    """Return the scenes with unique names; a second scene of the same name is skipped."""
    names = unique_names([(scene.split, scene.name) for scene in found.scenes])
    taken: dict[str, Scene] = {}
    for name, scene in zip(names, found.scenes, strict=True):
        first = taken.setdefault(name, replace(scene, name=name))
        if first.files != scene.files:
            files, others = next(iter(scene.files.values())), next(iter(first.files.values()))
            found.left_out.append((str(files), f"its name {name!r} is taken by {others}"))
    return Scenes(found.layout, list(taken.values()), found.left_out)
