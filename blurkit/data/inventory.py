"""Descriptions of images, shards, streams and folders, read one record at a time.

With `verify`, all pixels are read and checksums verified, which detects damage.
"""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from blurkit.data.sources import ShardSource, find_items, is_stream, item_records, read_shard_source
from blurkit.errors import BlurkitError, OnError
from blurkit.io.films import read_film, stated_length
from blurkit.io.formats import is_image
from blurkit.io.images import FrameTime, Picture, decode_image, read_image
from blurkit.io.records import Record
from blurkit.io.shards import SIGNATURE, is_shard
from blurkit.io.videos import describe_video, is_video, video_times

MOST_EXAMPLES = 3
LONGEST_TEXT = 100
"""A text attribute is described by at most this many examples, of this many characters each."""

RecordWatch = Callable[[Iterator[Record]], Iterator[Record]]
"""Passes on the records that it gets, for example to show a progress bar."""

Description = dict[str, Any]
"""Plain JSON values; a range is {"min": ..., "max": ...}."""


def describe_image(path: Path, verify: bool = False) -> Description:
    """Return displayed size, type, channels, alpha and metadata; raises as `read_image` does."""
    return _image(read_image(path, verify), path.stat().st_size)


def describe_image_data(data: bytes, name: str, verify: bool = False) -> Description:
    """Return what `describe_image` does of an image file's content; `name` is for messages."""
    return _image(decode_image(io.BytesIO(data), Path(name), verify), len(data))


def _image(picture: Picture, file_bytes: int) -> Description:
    return {
        "kind": "image",
        **_picture(picture),
        "orientation": picture.attrs.get("orientation", 1),
        "exif_bytes": len(picture.attrs.get("exif", b"")),
        "icc_profile_bytes": len(picture.attrs.get("icc_profile", b"")),
        "file_bytes": file_bytes,
    }


def _picture(picture: Picture) -> Description:
    height, width, channels = picture.pixels.shape
    kind, alpha = str(picture.pixels.dtype), picture.alpha is not None
    return {"width": width, "height": height, "channels": channels, "type": kind, "alpha": alpha}


def describe_film(path: Path, verify: bool = False) -> Description:
    """Return the format, size, frames, seconds and, of a video, codec, colours and sound of a film.

    Without `verify`, only an animation's pictures are all decoded. Raises as `read_film` does.
    """
    decoded = read_film(path)
    first, frames, times = next(decoded), 1, []
    if is_video(path) and not verify:
        decoded.close()
        times = video_times(path)
        frames = len(times)
    elif "pts" not in first.attrs and not verify:
        decoded.close()
        frames = stated_length(path) or 1
    else:
        times = [FrameTime.of(first.attrs)] if "pts" in first.attrs else []
        for picture in decoded:
            frames += 1
            times += [FrameTime.of(picture.attrs)] if times else []
    return {
        "kind": "film",
        **_picture(first),
        "frames": frames,
        **(_timing(times) if times else {}),
        **(describe_video(path) if is_video(path) else {}),
        "file_bytes": path.stat().st_size,
    }


def _timing(times: list[FrameTime]) -> Description:
    """Return how long a film lasts, and its frame rate; times are rounded to ticks."""
    seconds = times[-1].start + times[-1].duration - times[0].start
    steps = [after.pts - before.pts for before, after in pairwise(times)]
    return {
        "seconds": round(float(seconds), 3),
        "rate": round(float(len(times) / seconds), 3) if seconds else None,
        "variable_rate": bool(steps) and max(steps) - min(steps) > 1,
    }


def describe_folder(
    path: Path,
    on_error: OnError,
    watch: RecordWatch = iter,
    blur: str = "blur",
    verify: bool = False,
) -> Description:
    """Return the layout and records of a folder of images, a dataset tree or a folder of shards.

    `blur` is as for `find_items`. Skipped and unreadable files are reported to `on_error`.
    """
    inputs = find_items([path], image="image", blur=blur, lists=())
    for reason in inputs.unmatched:
        on_error(str(path), BlurkitError(reason))
    inputs.report(on_error)
    shards = [item for item in inputs.items if isinstance(item, ShardSource)]
    layouts = ", ".join(inputs.layouts).removeprefix(f"{path}: ")
    layout = {"shards": len(shards)} if shards else {"layout": layouts}
    records = item_records(inputs.items, on_error=on_error, pixels=verify)
    return {"kind": "folder", **layout, **describe_records(watch(records))}


def describe_packed(
    source: str, on_error: OnError, watch: RecordWatch = iter, verify: bool = False
) -> Description:
    """Return the description of the whole records of a shard, a saved stream, or stdin (`-`).

    Truncated or damaged data is reported to `on_error`.
    """
    records = watch(read_shard_source(ShardSource(source), on_error, pixels=verify))
    if is_stream(source):
        return {"kind": "stream", **describe_records(records)}
    stored = {"compression": _compression(source), "file_bytes": Path(source).stat().st_size}
    return {"kind": "shard", **describe_records(records), **stored}


def holds_records(path: Path) -> bool:
    """Return whether a file is a shard or a saved stream, by its name or its first bytes."""
    if is_shard(path):
        return True
    with path.open("rb") as file:
        return not is_image(path) and file.read(len(SIGNATURE)) == SIGNATURE


def describe_records(records: Iterable[Record]) -> Description:
    """Return the number of records, splits and sequences, and what images and attributes hold."""
    count = image_bytes = 0
    splits: Counter[str] = Counter()
    sequences: set[str] = set()
    images: dict[str, Counter[tuple[Any, ...]]] = defaultdict(Counter)
    attributes: dict[str, _Values] = defaultdict(_Values)
    for record in records:
        count += 1
        image_bytes += record.bytes
        splits[str(record.attrs.get("split", ""))] += 1
        if "sequence" in record.attrs:
            sequences.add(str(record.attrs["sequence"]))
        for role, image in record.images.items():
            images[role][(*image.shape, str(image.dtype))] += 1
        for key, value in record.attrs.items():
            attributes[key].add(value)
    return {
        "records": count,
        "splits": {split: n for split, n in splits.items() if split},
        "sequences": len(sequences),
        "images": {role: _images(kinds) for role, kinds in images.items()},
        "attributes": {key: summary.as_dict() for key, summary in attributes.items()},
        "image_bytes": image_bytes,
    }


def _images(kinds: Counter[tuple[Any, ...]]) -> Description:
    """Describe the images of one role, whose shapes and types are counted."""
    heights, widths, channels, types = zip(*kinds, strict=True)
    return {
        "count": kinds.total(),
        "width": {"min": min(widths), "max": max(widths)},
        "height": {"min": min(heights), "max": max(heights)},
        "channels": sorted(set(channels)),
        "types": sorted(set(types)),
    }


class _Values:
    """The values of one attribute: the range of numbers, shapes of arrays, examples of the rest."""

    def __init__(self) -> None:
        self.count = 0
        self.range: list[float] = []
        self.examples: list[str] = []

    def add(self, value: Any) -> None:
        self.count += 1
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if value == value:  # not NaN
                self.range = [min([*self.range, value]), max([*self.range, value])]
            return
        text = str(value)
        if isinstance(value, np.ndarray):
            text = f"{value.dtype} {'x'.join(map(str, value.shape))}"
        if len(text) > LONGEST_TEXT:
            text = f"{text[:LONGEST_TEXT]}..."
        if text not in self.examples and len(self.examples) < MOST_EXAMPLES:
            self.examples.append(text)

    def as_dict(self) -> Description:
        described: Description = {"count": self.count}
        described |= zip(("min", "max"), self.range, strict=False)
        return described | ({"examples": self.examples} if self.examples else {})


def _compression(path: str) -> str | None:
    """Return the compression of a shard's first image, None if it has none or is damaged."""
    try:
        with h5py.File(path, "r", locking=False) as shard:
            images = (item for item in shard[min(shard)].values() if isinstance(item, h5py.Dataset))
            return next(images).compression
    except Exception:  # HDF5 raises many kinds of errors for damage, reported elsewhere
        return None
