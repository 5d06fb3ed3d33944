"""Makes an ONNX file refer to a checkpoint beside it for the weights that both contain.

blurkit export msdi.pt --half -o msdi.onnx && python -m blurkit.weights.refer msdi.onnx msdi.pt

The ONNX file then works only beside that very checkpoint. torch stores tensors uncompressed, so
that ONNX Runtime reads them from there without torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from blurkit.errors import BlurkitError
from blurkit.io.writing import replacing
from blurkit.reports.progress import program, say

LEAST = 1024
"""The number of bytes from which a tensor is looked for: shorter ones may occur by chance."""


def refer(network: Path, checkpoint: Path) -> int:
    """Remove the tensors from an ONNX file that a checkpoint contains; return their size in bytes.

    Raises BlurkitError if the files are not in the same folder, as ONNX demands, if one cannot be
    read, or if the checkpoint contains none of the tensors.
    """
    if network.resolve().parent != checkpoint.resolve().parent:
        raise BlurkitError(f"{network}: has to be in the folder of {checkpoint}")
    try:
        model, stored = onnx.load(network), checkpoint.read_bytes()
    except OSError as error:
        raise BlurkitError(f"{error.filename}: cannot be read ({error.strerror})") from error
    except Exception as error:  # of protobuf's own classes
        raise BlurkitError(f"{network}: damaged, or not an ONNX file") from error
    removed = 0
    for tensor in model.graph.initializer:
        size = len(tensor.raw_data)
        offset = stored.find(tensor.raw_data) if size >= LEAST else -1
        if offset >= 0:
            set_external_data(tensor, checkpoint.name, offset, size)
            tensor.ClearField("raw_data")
            removed += size
    if not removed:
        raise BlurkitError(f"{checkpoint}: contains no weights of {network}")
    with replacing(network, force=True) as partial:
        onnx.save(model, partial)
    return removed


@program
def main(arguments: Sequence[str]) -> None:
    """Make the first file refer to the second."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.refer", description=__doc__)
    parser.add_argument("network", type=Path, help="the ONNX file to change")
    parser.add_argument("checkpoint", type=Path, help="the checkpoint beside it")
    o = parser.parse_args(arguments)
    removed, size = refer(o.network, o.checkpoint), o.network.stat().st_size
    say(f"{o.network}: {size:,} bytes; {removed:,} more are read from {o.checkpoint.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
