"""Compresses a checkpoint without loss. torch reads its archive either way, if a little slower.

python -m blurkit.weights.deflate blurkit/weights/deconvolution.pt

It has to come last: whatever writes the file again does not compress it. An ONNX file cannot refer
to the weights in a compressed checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.writing import replacing
from blurkit.reports.progress import program


@program
def main(arguments: Sequence[str]) -> None:
    """Compress the checkpoint named on the command line, in place."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.deflate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="the checkpoint to compress")
    path = parser.parse_args(arguments).checkpoint
    load_checkpoint(path)  # which says in one line what is wrong with a file
    with (
        ZipFile(path) as archive,
        replacing(path) as partial,
        ZipFile(partial, "w", ZIP_DEFLATED, compresslevel=9) as smaller,
    ):
        for record in archive.infolist():
            named = ZipInfo(record.filename)  # no date: the same bytes every time
            smaller.writestr(named, archive.read(record), ZIP_DEFLATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
