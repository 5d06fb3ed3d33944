"""List files: the text files in which public loaders list a dataset's images, line by line.

They select the images of a folder, and may state the split of each. `Images.find` says where a path
in a list may start.
"""

import codecs
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from blurkit.data.places import (
    BLUR_WORDS,
    ROLE_FOLDER,
    SHARP_WORDS,
    SPLITS,
    Found,
    Scene,
    locate,
    place_below,
    unique_names,
)
from blurkit.errors import BlurkitError
from blurkit.io.formats import IMAGE_SUFFIXES
from blurkit.io.paths import composed, normal, walk

_LIST_WORDS = {"list", "set", "data", "files", "names", "images", "sequences", "scenes", "clips"}
_BETWEEN = " \t,;\"'"
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))
_IMAGE = re.compile(rf"[^{_BETWEEN}].*?(?:{_SUFFIX})(?=[{_BETWEEN}]|$)", re.IGNORECASE)
"""The path of an image in a line of a list."""


@dataclass(frozen=True)
class Listed:
    """One line of a list: what it names (paths, a clip or a file name) and the list's split.

    `source` is the list, `where` the line's location, such as `list.txt, line 3`. `files` are the
    paths by role; a line with one field has none, because it selects what it names.
    """

    source: Path
    where: str
    names: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    split: str | None = None


def read_lists(lists: Sequence[Path]) -> list[Listed]:
    """Read every line of some list files, in order.

    A line holds the two files of a pair in either order; their roles follow from folder and file
    names. The same path twice is a blurred image without a sharp one. A line with one field
    selects: a clip number (also BasicSR's `000 100 (720,1280,3)`), a file name or a path. Two lists
    of this kind whose names differ only in `blur` and `sharp` are the columns of one list of pairs.

    Raises BlurkitError as `read_names` does, and if the roles of two files are unclear, or the two
    columns differ in length.
    """
    listed: list[Listed] = []
    columns: dict[tuple[str, ...], dict[str, list[Listed]]] = {}
    for path in lists:
        words, lines = _words(path.stem), read_names(path)
        single = [line for line in lines if len(line.names) == 1]
        pairs = (line for line in lines if len(line.names) == 2)
        listed += [replace(line, files=_pair_roles(line.where, *line.names)) for line in pairs]
        role = _role_of_words(words)
        rest = tuple(word for word in words if _role_of_words((word,)) is None)
        if single and role and role not in columns.setdefault(rest, {}):
            columns[rest][role] = single
        else:
            listed += single
    for sides in columns.values():
        listed += _joined(sides)
    return listed


def read_names(path: Path) -> list[Listed]:
    """Read every line of one list file, whatever the roles; its name states the split.

    Raises BlurkitError if the list is empty or cannot be read, or if a line has another form.
    """
    split, listed = split_of_list(path), []
    try:
        text = _decoded(path.read_bytes())
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BlurkitError(f"{path}: is not a readable text file") from error
    for number, line in enumerate(text.splitlines(), 1):
        where, names = f"{path}, line {number}", _fields(composed(line).replace("\\", "/"))
        if len(names) > 2:
            reason = f"{len(names)} fields; a list has one or two paths per line"
            raise BlurkitError(f"{where}: {reason}")
        if names:
            listed.append(Listed(path, where, tuple(names), split=split))
    if not listed:
        raise BlurkitError(f"{path}: the list is empty")
    return listed


def split_of_list(path: Path) -> str | None:
    """Return the one split in a list's name (`trainlist.txt`), or None for none or several."""
    splits = {SPLITS[word] for word in _split_words(path) if word in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def _split_words(path: Path) -> list[str]:
    return [re.sub(r"(?<=.)(?:list|set|data)$", "", word) for word in _words(path.stem)]


def first_image(path: Path) -> str:
    """Return the path in the first line of a text file that is not blank, "" if it is no image."""
    try:
        with path.open("rb") as file:
            lines = _decoded(file.read(4096), errors="ignore").splitlines()
    except OSError:
        return ""
    line = next((line for line in lines if line.strip()), "")
    return next(iter(_IMAGE.findall(line.replace("\\", "/"))), "")


def _joined(sides: dict[str, list[Listed]]) -> list[Listed]:
    """Join lists of one column each: two are paired line by line, a single one selects scenes."""
    if len(sides) == 1:
        return next(iter(sides.values()))
    blurred, sharp = sides["blur"], sides["sharp"]
    if len(blurred) != len(sharp):
        raise BlurkitError(
            f"{blurred[0].source} has {len(blurred)} lines and {sharp[0].source} has {len(sharp)}; "
            "they must name the same images line by line"
        )
    pairs = [(line, line.names + other.names) for line, other in zip(blurred, sharp, strict=True)]
    return [replace(line, names=n, files={"blur": n[0], "sharp": n[1]}) for line, n in pairs]


def _decoded(data: bytes, errors: str = "strict") -> str:
    """Return the text of a list in UTF-8 or, as Windows' shell writes it, in UTF-16 with a mark."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors)


def _fields(line: str) -> list[str]:
    """Return the paths of a line; names of image files may contain blanks."""
    if not _IMAGE.sub("", line).strip(_BETWEEN):
        return [os.path.normpath(text) for text in _IMAGE.findall(line)]
    fields = line.split()
    shaped = any(text.startswith("(") for text in fields)  # which follows the name and counts
    return fields[:1] if shaped else fields


def _pair_roles(where: str, first: str, second: str) -> dict[str, str]:
    if first == second:
        return {"blur": first}
    roles = role_of(first), role_of(second)
    if roles[0] == roles[1]:
        raise BlurkitError(
            f"{where}: cannot tell which of {first!r} and {second!r} is blurred; "
            "name it in a folder (blur/, sharp/) or in the file names"
        )
    blurred = roles[0] == "blur" or roles[1] == "sharp"
    blur, sharp = (first, second) if blurred else (second, first)
    return {"blur": blur, "sharp": sharp}


def role_of(text: str) -> str | None:
    """Return `blur` or `sharp` from the folders of a path, or else from words in its file name."""
    path = PurePosixPath(text)
    return locate(Path(text), path.parts).role or _role_of_words(_words(path.stem))


def _words(stem: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+", stem.lower()))


def _role_of_words(words: Sequence[str]) -> str | None:
    """Return the one role that `words` name, or None if they name none or both."""
    roles = {"blur" for word in words if word in BLUR_WORDS}
    roles |= {"sharp" for word in words if word in SHARP_WORDS}
    return roles.pop() if len(roles) == 1 else None


# ---- Splits --------------------------------------------------------------------------------------

STRENGTH = ("test", "val", "train", None)
"""Of several splits that lists state for a scene, the first in this order counts."""


class Images:
    """The image files below the folder `root`, found by the ends of their paths.

    In the paths that are looked up, a blurred folder is replaced by the chosen one, `blur`.
    """

    def __init__(self, root: Path, files: Iterable[Path], blur: str) -> None:
        self.root, self._given, self._blur = root, files, blur

    @cached_property
    def _files(self) -> dict[Path, Path]:
        return {_plain(file): file for file in self._given}

    @cached_property
    def _ends(self) -> dict[str, list[Path]]:
        ends: dict[str, list[Path]] = defaultdict(list)
        above = _plain(self.root).parts[1:][-2:]
        for file in self._files.values():
            parts = (*above, *map(composed, file.relative_to(self.root).parts))
            for start in range(len(parts)):
                ends["/".join(parts[start:]).lower()].append(file)
        return ends

    def find(self, text: str, source: Path) -> dict[Path, Path]:
        """Return the images that the path `text` in the list `source` names, by where it starts.

        If it starts in the folder of the list, in `root`, or in the folder above either, that is
        the only one; otherwise it names all images whose paths end with it, in upper or lower case.
        """
        if text.startswith(("/", "../")):
            path, top = (source.parent / text).resolve(), self.root.resolve()
            text = path.relative_to(top).as_posix() if path.is_relative_to(top) else text
        text = _in_folder(text, self._blur)
        for start in self._starts(source):
            path = _plain(start / text)
            if path in self._files:
                return {start: self._files[path]}
        found = self._ends.get(text.lower(), [])
        same = [file for file in found if composed(file.as_posix()).endswith(text)]
        above = text.count("/")
        return {([*file.parents, Path()])[above]: file for file in same or found}

    def elsewhere(self, line: Listed) -> bool:
        """Return whether the files that a line names exist: it is about another folder then."""
        starts = self._starts(line.source)
        return all(any((start / text).exists() for start in starts) for text in line.names)

    def _starts(self, source: Path) -> list[Path]:
        folders = normal(source).parent, normal(self.root)
        return [start for folder in folders for start in (folder, folder.parent)]


def _plain(path: Path) -> Path:
    """Return the path by which a file is looked up: absolute and composed."""
    return Path(composed(str(normal(path))))


def listed_pairs(listed: Sequence[Listed], images: Images, blur: str) -> list[Scene]:
    """Return the scenes of lines that name pairs; the two paths of a line start in one folder."""
    scenes = []
    for line in listed:
        found = {role: images.find(text, line.source) for role, text in line.files.items()}
        for start in found["blur"]:
            if all(start in files for files in found.values()):
                files = {role: files[start] for role, files in found.items()}
                place = place_below(files["blur"], images.root, blur)
                scenes.append(Scene(place.name, files, place.split, place.sequence))
    return scenes


def pairs_listed_near(images: Images, blur: str) -> list[Scene]:
    """Return the pairs that the lists inside and beside a folder name."""
    lines: list[Listed] = []
    for path in _nearby(images.root):
        with suppress(BlurkitError):  # it is no list of pairs
            lines += [line for line in read_lists([path]) if len(line.files) == 2]
    return listed_pairs(lines, images, blur)


def select(scenes: Sequence[Scene], listed: Sequence[Listed], images: Images) -> Found[Scene]:
    """Return the scenes that the lines of the user's lists select, in this order.

    Lists inside and beside the folder are read, too: what they keep for testing stays so. A list
    without any image of the folder is `unmatched`.
    """
    claims = _Claims(scenes, images)
    claims.add(listed)
    selected = list(claims.lines)
    given = {line.source.resolve(): line.source for line in listed}
    for path in _nearby(images.root):
        if path.resolve() not in given:
            claims.add_readable(path)
    assigned = claims.assigned(selected)
    for source in given.values():
        claims.check(source, claims.missing[source], assigned)
    return assigned


def split_by_lists(
    scenes: Sequence[Scene], images: Images, layout: str, read: bool = True
) -> Found[Scene]:
    """Return the scenes of a folder with the splits that lists inside and beside it state, if read.

    A list that names no image is `unmatched` if it is clearly about this folder. If a list of
    training images is found, scenes that nothing assigns are left out: they may be for testing.
    """
    claims = _Claims(scenes, images)
    broken, needed = [], []
    for path in _nearby(images.root) if read and scenes else []:
        if not _is_about(path, images.root, layout):
            claims.add_readable(path)
            continue
        try:
            claims.add(read_names(path))
            needed.append(path)
        except BlurkitError as error:
            broken.append(str(error))
    assigned = claims.assigned(range(len(scenes)))
    assigned.unmatched += broken
    for path in dict.fromkeys((*needed, *claims.matched)):
        missing = [line for line in claims.missing[path] if not images.elsewhere(line)]
        if missing and not claims.is_harmless(path):
            claims.check(path, missing, assigned)
    trained = any(split_of_list(path) == "train" for path in claims.matched)
    if unlisted := [scene for scene in assigned.items if trained and scene.split is None]:
        assigned.items = [scene for scene in assigned.items if scene.split is not None]
        names = ", ".join(sorted(path.name for path in claims.matched))
        reason = f"{len(unlisted)} scenes are in no list ({names}); the first: {unlisted[0].name}"
        assigned.left_out.append((str(images.root), reason))
    return assigned


class _Claims:
    """Which lines of lists name which scenes, and which name none."""

    def __init__(self, scenes: Sequence[Scene], images: Images) -> None:
        self.scenes, self.images = scenes, images
        self.lines: dict[int, list[Listed]] = {}
        self.matched: Counter[Path] = Counter()
        self.missing: dict[Path, list[Listed]] = defaultdict(list)

    @cached_property
    def _numbers(self) -> dict[Path | str, list[int]]:
        """The numbers of the scenes by file, name, sequence, file name and stem."""
        numbers: dict[Path | str, list[int]] = defaultdict(list)
        for number, scene in enumerate(self.scenes):
            sequence = scene.sequence or ""
            keys: set[Path | str] = {scene.name, sequence, sequence.rpartition("/")[2]}
            for path in scene.files.values():
                keys |= {path, composed(path.name), composed(path.stem)}
            for key in keys - {""}:
                numbers[key].append(number)
        return numbers

    def of(self, line: Listed) -> list[int]:
        """Return the numbers of the scenes that a line names, by path, file name or sequence."""
        files = [f for text in line.names for f in self.images.find(text, line.source).values()]
        found = dict.fromkeys(n for file in files for n in self._numbers.get(file, []))
        return list(found) or (self._numbers.get(line.names[0], []) if len(line.names) == 1 else [])

    def add(self, lines: Iterable[Listed]) -> None:
        """Note which scenes the lines of a list name."""
        for line in lines:
            numbers = self.of(line)
            for number in numbers:
                self.lines.setdefault(number, []).append(line)
            if numbers:
                self.matched[line.source] += 1
            else:
                self.missing[line.source].append(line)

    def add_readable(self, path: Path) -> None:
        """Add the lines of a text file if it proves to be a list of these images."""
        root, first = normal(self.images.root), first_image(path)
        beside = normal(path).parent == root.parent and "/" in first
        above = first.startswith(f"{root.parent.name}/")
        if not (beside or above or normal(path).is_relative_to(root)):
            return
        with suppress(BlurkitError):
            lines = read_names(path)
            if any(map(self.of, lines)):
                self.add(lines)

    def assigned(self, selected: Sequence[int]) -> Found[Scene]:
        """Return the scenes `selected`, with unique names and with the splits that lists state.

        Lists count more than folders, but a scene that any of them keeps for testing stays so.
        Training lists that name scenes of other splits are reported.
        """
        scenes = [self.scenes[number] for number in selected]
        names = unique_names([(scene.split, scene.name) for scene in scenes])
        result: Found[Scene] = Found()
        clashes: dict[Path, list[Scene]] = defaultdict(list)
        for number, name, scene in zip(selected, names, scenes, strict=True):
            lines = self.lines.get(number, [])
            first = min(lines, key=lambda line: STRENGTH.index(line.split), default=None)
            if first and first.split and scene.split != "test":
                scene = replace(scene, split=first.split, split_source=str(first.source))
            result.items.append(replace(scene, name=name))
            for source in {line.source for line in lines if line.split == "train" != scene.split}:
                clashes[source].append(result.items[-1])
        for source, scenes in clashes.items():
            kept = scenes[0]
            reason = (
                f"lists {len(scenes)} scenes for training that are kept for testing or validation; "
                f"the first: {kept.name}, {kept.split} by {kept.split_source}"
            )
            result.left_out.append((str(source), reason))
        return result

    def is_harmless(self, path: Path) -> bool:
        """Return whether a list that names no scene does no harm, because others name every scene.

        That is RealBlur-R's where only RealBlur-J is, and the training list beside test images.
        """
        if self.matched[path] or len(self.lines) < len(self.scenes):
            return False
        split = split_of_list(path)
        return split == "train" or split in map(split_of_list, self.matched)

    def check(self, source: Path, missing: list[Listed], result: Found[Scene]) -> None:
        """Report in `result` that no line or only some lines of a list name a scene."""
        if not missing:
            return
        first, matched = missing[0], self.matched[source]
        name = f"{' '.join(first.names)}: names no image below {self.images.root}"
        if matched:
            count = len(self.missing[source]) + matched
            reason = f"{name}; {len(missing)} of the list's {count} lines match nothing"
            result.left_out.append((first.where, reason))
        else:
            result.unmatched.append(
                f"{first.where}: {name}; none of the list's {len(missing)} lines does; correct the "
                "paths, or move the list away if it is about other images"
            )


def _nearby(root: Path) -> list[Path]:
    """Return the text files that are named after a split, in `root` or in the two folders above."""
    top = normal(root)
    texts = walk(root, (".txt",))
    for folder in dict.fromkeys((top.parent, top.parent.parent)):
        texts += sorted(path for path in folder.glob("*.[tT][xX][tT]") if path.is_file())
    return [path for path in texts if split_of_list(path)]


def _is_about(path: Path, root: Path, layout: str) -> bool:
    """Return whether a list must name images of `root`, because of its place, name or content."""
    first = first_image(path).lower()
    if path.is_relative_to(root):  # a name such as train_list.txt says only its split
        return bool(first) or all(w in SPLITS or w in _LIST_WORDS for w in _split_words(path))
    named = path.name.lower().startswith(layout.partition(" ")[0].lower())
    return named or first.startswith(f"{normal(root).name.lower()}/")


def _in_folder(text: str, blur: str) -> str:
    """Return a listed path with its blurred folder replaced by the chosen one."""
    parts = text.split("/")
    for index in reversed(range(len(parts) - 1)):
        match = ROLE_FOLDER.fullmatch(parts[index].lower())
        if blur != "blur" and match and match["blur"]:
            parts[index] = f"{match['split']}_{blur}" if match["split"] else blur
            break
    return "/".join(parts)
