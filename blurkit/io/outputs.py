"""The sink that a command's `-o` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blurkit.errors import UsageError
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import is_written, why_unread
from blurkit.io.image_sinks import FileOptions, ImageFile, ImageFolder, ImagesBeside, ImageStream
from blurkit.io.paths import is_folder
from blurkit.io.shards import SHARD_SUFFIXES, is_shard
from blurkit.io.sinks import ShardSink, Sink, StreamSink
from blurkit.io.streams import standard_output


def open_sink(
    output: str | None,
    show: Sequence[str],
    label: str,
    options: FileOptions = FileOptions(),
) -> Sink:
    """Return the sink that `-o OUTPUT` names.

    `-` is a stream on standard output, or one image if `options` name a format, `x.h5` a shard,
    `x.png` and the like one image, `x.mp4` and the like one film, `x/` or an existing folder a
    folder of images and films; None writes each image or film next to its source file, with
    `.label` before the suffix. `show` lists a record's images in order of preference: images and
    folders receive the first that the record has, shards and streams the whole record. Raises
    UsageError if the output is none of these or is a terminal, if `options` cannot apply to it, or
    for a stream that is to be resumed.
    """
    suffix = options.suffix
    if output is None:
        return ImagesBeside(show, label, options)
    if output == "-" and options.resume:
        raise UsageError("--resume requires files as output; '-o -' cannot be continued")
    if output == "-" and suffix:
        return ImageStream(standard_output(), show, options)
    path = Path(output)
    if is_folder(output):
        return ImageFolder(path, show, options)
    if is_written(path) or path.suffix.lower() in FILM_SUFFIXES:
        if suffix not in (None, path.suffix.lower()):
            raise UsageError(f"--format {options.format} contradicts -o {output}")
        return ImageFile(path, show, options)
    if (suffix or options.quality is not None) and (output == "-" or is_shard(path)):
        raise UsageError(f"-o {output} holds records, not images; leave out --format and --quality")
    if output == "-":
        return StreamSink(standard_output())
    if is_shard(path):
        return ShardSink(path, options.force, resume=options.resume)
    shards = " ".join(sorted(SHARD_SUFFIXES))
    kinds = f"an image, a film, a folder (end it with /), a shard ({shards}) or -"
    reason = why_unread(path.suffix.lower())
    raise UsageError(f"-o {output}: name {kinds}" + (f" ({reason})" if reason else ""))
