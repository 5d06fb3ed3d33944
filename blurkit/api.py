"""The commands as Python calls on arrays and records.

An image is an array (H, W, 3), (H, W, 1) or (H, W): uint8, uint16, or floats in [0, 1]. The result
for an array has its shape and depth; floats become float32. The result for a record is the record
that the command would write: it also holds the new image and attributes that describe it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.paths import reading_errors, refuse_missing
from blurkit.io.records import Record
from blurkit.options import Placement, Precision, Protocol, ValueRange
from blurkit.systems.system import shipped_file
from blurkit.tasks.addresses import local_file, refuse_unused

if TYPE_CHECKING:
    from blurkit.data.inventory import Description, RecordWatch
    from blurkit.data.prepare import Preparation
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.metrics.contextual import Contextual
    from blurkit.metrics.evaluation import Report
    from blurkit.metrics.lpips import Lpips
    from blurkit.metrics.statistics import Scored
    from blurkit.model import Model
    from blurkit.nn.features import FeatureNetwork

# ---- files ---------------------------------------------------------------------------------------


def read_records(
    *inputs: str | Path, image: str = "blur", blur: str = "blur", on_error: OnError = raise_error
) -> Iterator[Record]:
    """Yield the records of images, folders, datasets and shards, with one in memory at a time.

    A single image gets the role `image`; `blur` is a dataset's blur folder, such as `blur_gamma`.
    The first bad item raises BlurkitError, unless `on_error(where, error)` handles it.
    """
    from blurkit.data import sources

    return sources.read_records(inputs, image=image, blur=blur, on_error=on_error)


def prepare(
    *inputs: str | Path,
    preparation: Preparation | None = None,
    image: str = "blur",
    blur: str = "blur",
    lists: Sequence[Path] = (),
    jobs: int = 1,
    on_error: OnError = raise_error,
) -> Iterator[Record]:
    """Yield the records that `blurkit prepare` makes of datasets, photos and videos.

    `preparation` says how: synthetic blur, averaged frames, crops (None: records are only read, and
    `psnr_blur` is measured). `image` is the role of photos without partners, `lists` are files that
    list the pairs to use, and `jobs` processes share the work. `blur` and `on_error` are those of
    `read_records`.
    """
    from blurkit.data.prepare import Preparation, find, prepare_items
    from blurkit.metrics.psnr import psnr

    how = preparation or Preparation(measure=psnr)
    found, how = find([str(text) for text in inputs], how, image, blur, lists)
    found.report(on_error)
    yield from prepare_items(found.items, how, jobs, on_error)


def write_records(records: Iterable[Record], output: str | Path, force: bool = False) -> int:
    """Write records to an image, a folder, a shard (.h5) or `-`, as `-o` does; return their number.

    A folder must exist or end in `/`. Image files receive the restored image, else the reblurred,
    else the blurry, else the sharp one. Raises BlurkitError if the output exists, unless `force` is
    given, and UsageError if it is of another kind.
    """
    from blurkit.io.image_sinks import FileOptions, open_sink

    count, show = 0, ("restored", "reblurred", "blur", "sharp")
    with open_sink(str(output), show, "written", FileOptions(force)) as sink:
        for record in records:
            sink.write(record)
            count += 1
    return count


# ---- models --------------------------------------------------------------------------------------


def load(
    source: str | Path | Checkpoint | None = None,
    encoder: str | Path | Sequence[str | Path] = (),
    *,
    sha256: str | Sequence[str] = (),
    system: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    protocol: Protocol = "tiles",
    value_range: ValueRange | None = None,
    network: str = "",
) -> Model:
    """Return the networks in a file of blurkit or of the official code; `-` is standard input.

    A file whose name ends in `.onnx` deblurs by ONNX Runtime. If another program wrote it,
    `value_range` names the values of black and white in it (None: found by trying a photo).
    `network` names the code of a network of your own, FILE.py:CLASS, which is then run.

    Without a `source`, each call uses the weights that come with blurkit for its task, or those of
    `system`. `encoder` is one or more files whose encoder or latents replace the checkpoint's.
    `tile` is the side in pixels at which networks run (None: the size they were trained on),
    `overlap` the width in pixels that tiles share (None: 32 or half a tile). `device` is auto, cpu,
    cuda, cuda:N or mps, `precision` is auto, fp32, bf16 or fp16. The `protocol`
    "slices", "whole" or "local" deblurs as papers measured. A file may be an address (https://...,
    hf://...), which is fetched once into the user's cache; `sha256` is the digest that it must
    have, or those of several files. Raises BlurkitError if a file is missing or cannot be fetched;
    one that is damaged or no checkpoint is reported by the first call that needs it.
    """
    from blurkit.model import Model

    files = [encoder] if isinstance(encoder, (str, Path)) else encoder
    digests = [sha256] if isinstance(sha256, str) else sha256
    refuse_unused(digests, [source, *files])
    source, files = local_file(source, digests), [local_file(file, digests) for file in files]
    refuse_missing(file for file in (source, *files) if isinstance(file, (str, Path)))
    if source == "-":
        from blurkit.io.checkpoints import load_checkpoint

        source = load_checkpoint("-")  # which can be read only once
    if value_range and not str(source).endswith(".onnx"):
        raise UsageError("value_range requires an ONNX file")
    placement = Placement(device, precision, tile, overlap, protocol)
    return Model(source, files, system, placement, value_range, network)


def contextual_similarity(
    x: np.ndarray,
    y: np.ndarray,
    *,
    features: str | Path | None = None,
    layers: Sequence[str] = (),
    bandwidth: float = 1.0,
    distance: str = "cosine",
    device: str = "auto",
) -> Contextual:
    """Return how similar image `x` is to image `y`, aligned or not, of any sizes.

    The result's `distance` is what papers print, -log CX: 0 for equal images, smaller is more
    similar. `features` is the file of a feature network (None: the one in BLURKIT_FEATURES, or
    VGG-19 in torch's cache), `layers` are some of its layers; `bandwidth` and `distance` (cosine,
    l1, l2) are those of Mechrez et al. 2018. Raises BlurkitError without a network and for an image
    that is too small.
    """
    from blurkit.metrics.contextual import ContextualSimilarity
    from blurkit.model import as_image
    from blurkit.nn.features import find_features

    backbone = _contextual_network(find_features(features), tuple(layers), device)
    compare = ContextualSimilarity(backbone, bandwidth, distance)
    return compare(as_image(x, "x"), as_image(y, "y"))


@lru_cache(maxsize=2)
def _contextual_network(file: Path, layers: tuple[str, ...], device: str) -> FeatureNetwork:
    from blurkit.engine.torch_runner import choose_device
    from blurkit.metrics.contextual import contextual_network

    return contextual_network(file, layers, choose_device(device))


# ---- what files hold -----------------------------------------------------------------------------


def info(
    source: str | Path | None = None,
    *,
    size: tuple[int, int] = (256, 256),
    verify: bool = False,
    blur: str = "blur",
    sha256: Sequence[str] = (),
    on_error: OnError = raise_error,
    watch: RecordWatch = iter,
) -> Description:
    """Return what a checkpoint, shard, stream, image, folder or dataset holds, as plain values.

    They are those that `blurkit info --json` prints. Without a `source`, they describe the weights
    that come with blurkit. `size` (height, width) in pixels is the image size for which the costs
    of networks are counted. `verify` also reads all pixels. `blur` and `on_error` are those of
    `read_records`; all bad items are listed under `problems`. Records pass through `watch`.
    """
    text = str(shipped_file() if source is None else local_file(source, sha256))
    failures: list[str] = []

    def note(where: str, error: BlurkitError) -> None:
        failures.append(str(error))
        on_error(where, error)

    with reading_errors(text):
        contents = _records(text, verify, blur, note, watch) or _networks(text, size)
    return {**contents, "problems": failures}


def _records(
    text: str, verify: bool, blur: str, on_error: OnError, watch: RecordWatch
) -> Description | None:
    """Return what an input of images or records holds, None for any other."""
    from blurkit.data import inventory
    from blurkit.data.sources import STDIN_NAMES, is_stream
    from blurkit.io.films import is_film
    from blurkit.io.formats import is_image, recognise
    from blurkit.io.images import HEAD
    from blurkit.io.shards import SIGNATURE
    from blurkit.io.streams import STDIN, standard_input

    path = Path(text)
    if not text:  # Path would take it for the current folder
        raise BlurkitError("an input has an empty name; give a file, a folder or -")
    if text == "-" or text in STDIN_NAMES:
        # A pipe may hold a checkpoint, too. An empty pipe is reported as a bad stream.
        head = cast(BufferedReader, standard_input()).peek(HEAD)
        if recognise(head[:HEAD]):
            return inventory.describe_image_data(standard_input().read(), STDIN, verify)
        if head[:1] in (SIGNATURE[:1], b""):
            return inventory.describe_packed("-", on_error, watch, verify)
    elif is_stream(text):
        return inventory.describe_packed(text, on_error, watch, verify)
    elif path.is_dir():
        return inventory.describe_folder(path, on_error, watch, blur, verify)
    elif not path.exists():
        raise BlurkitError(f"{text}: no such file or folder")
    elif is_film(path):
        return inventory.describe_film(path, verify)
    elif inventory.holds_records(path):
        return inventory.describe_packed(text, on_error, watch, verify)
    elif is_image(path):
        return inventory.describe_image(path, verify)
    return None


def _networks(text: str, size: tuple[int, int]) -> Description:
    """Return what an ONNX file, a checkpoint, the state or the log of a training holds."""
    if text.endswith(".jsonl"):
        from blurkit.reports.plots import describe_log

        return describe_log(Path(text))
    if text.endswith(".onnx"):
        from blurkit.engine.onnx_runner import describe_onnx

        return describe_onnx(Path(text))
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.tasks.inspect import describe_checkpoint, describe_state
    from blurkit.training.state import find_state

    if state := find_state(text):
        return describe_state(state, text, *size)
    return describe_checkpoint(load_checkpoint(text), *size)


# ---- what results are worth ----------------------------------------------------------------------


def sharpness(image: np.ndarray) -> float:
    """Return how sharp an image looks, from 0 (blurry) to 1 (sharp), without a reference.

    It is 1 minus the perceptual blur metric of Crete et al. 2007. Raises BlurkitError if the image
    is invalid.
    """
    from blurkit.metrics import sharpness as metric
    from blurkit.model import as_image

    return metric.sharpness(as_image(image, "image"))


def evaluate(
    scenes: str | Path | Iterable[Record | Mapping[str, Record]],
    *,
    reference: str | Path | None = None,
    ssim: Sequence[str] = ("basicsr", "matlab"),
    metrics: Sequence[str] = (),
    lpips: Lpips | None = None,
    image: str | None = None,
    target: str = "sharp",
    by_sequence: bool = False,
    confidence: float | None = None,
    seed: int = 0,
) -> Report:
    """Return the report of `blurkit eval` on records, or on the records of several runs by name.

    In place of records, `scenes` may be what holds them: a shard, or a folder or image of restored
    images, which are then paired by name with the sharp ones in `reference`, as the command does.
    `image` of a record (None: restored, or else what it has) is compared with its `target`. `ssim`
    and `metrics` are those of the command; `lpips` is what `metrics.lpips.load_lpips` returns.
    `by_sequence` adds the means of each sequence, `confidence` intervals of the means at that
    level, drawn with `seed`. Raises BlurkitError for a record that lacks an image, UsageError for
    an unknown name.
    """
    from blurkit.metrics.evaluation import make_report
    from blurkit.metrics.scores import Measures
    from blurkit.metrics.statistics import Scored

    measures = Measures(ssim, metrics, lpips, image, target)
    rows: dict[str, list[Scored]] = {}
    if isinstance(scenes, (str, Path)):
        scenes = _scenes(str(scenes), reference)
    elif reference is not None:
        raise UsageError("reference requires a file or folder of restored images, not records")
    for scene in scenes:
        runs = {"": scene} if isinstance(scene, Record) else scene
        for run, record in runs.items():
            rows.setdefault(run, []).append(Scored.of(record, measures.score(record)))
    return make_report(rows or {"": []}, measures, by_sequence, confidence, seed)


def _scenes(source: str, reference: str | Path | None) -> Iterable[Record]:
    """Return the records of a shard, or pairs of restored images and those of a reference."""
    from blurkit.data.collection import RestorationRuns, are_two_sides, read_two_sides
    from blurkit.data.places import WHOLE
    from blurkit.data.sources import read_records

    if reference is None:
        return read_records([source], image="restored")
    if are_two_sides([source, str(reference)]):
        return read_two_sides(source, str(reference))
    return (scene[source] for scene in RestorationRuns([source], str(reference)).part(WHOLE))


def html_report(records: Iterable[Record], folder: str | Path, force: bool = False) -> Path:
    """Write the report of `deblur --html` on restored records to a folder; return its page.

    Records with `sharp` get PSNR and SSIM, too. One record is in memory at a time. Raises
    BlurkitError if the folder holds a report, unless `force` is given, or other files; if a record
    lacks `blur` or `restored`; or if there is no record.
    """
    from blurkit.reports.page import RestorationReport

    report = RestorationReport(Path(folder), force)
    for record in records:
        report.add(record)
    if page := report.write():
        return page
    raise BlurkitError(f"{folder}: there is no record to report")
