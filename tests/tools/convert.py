"""Convert trained networks: halve, widen, compress or describe a checkpoint, or make an ONNX
file read its weights from one.

python -m tests.tools.convert halve deblur.pt -o small.pt
python -m tests.tools.convert widen deblur.pt -o wide.pt
python -m tests.tools.convert compress blurkit/weights/deconvolution.pt
python -m tests.tools.convert describe examples/cards/msdi.tsv blurkit/weights/msdi.pt
python -m tests.tools.convert refer msdi.onnx msdi.pt
"""

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import torch
from torch import Tensor

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, halved, load_checkpoint, save_checkpoint
from blurkit.io.writing import refuse_existing, replacing
from blurkit.reports.progress import say
from blurkit.systems.msdi.networks import MODULATION_KEYS
from blurkit.training.state import read_state, state_checkpoint
from tests.tools.program import program

COLUMNS = ("data", "number", "use", "terms")
"""The columns of a table of training data."""

LEAST = 1024
"""The size in bytes below which an ONNX file keeps a tensor: it may match by chance."""

FIRST, LAST = ("conv_01.", "conv_02."), "last."
"""The keys of the layers whose inputs, or outputs, are pixels and are not doubled."""

ASYMMETRY = 0.5
"""How unequally two copies of a channel are weighted, so that they learn different things."""


# ---- One checkpoint from another -----------------------------------------------------------------


def add_files(parser: argparse.ArgumentParser, trained: str) -> None:
    """Add the arguments of `convert`; `trained` is the help of the file to read."""
    parser.add_argument("trained", type=Path, help=trained)
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")


def convert(o: argparse.Namespace, made: Callable[[Path], Checkpoint]) -> None:
    """Write the checkpoint that `made` returns for the file in the arguments."""
    refuse_existing(o.output, o.force)
    save_checkpoint(made(o.trained), o.output)
    say(f"{o.output}: {o.output.stat().st_size:,} bytes")


def so_far(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    The file may also be the running state of train-reblur or train-deblur; its current weights are
    then returned, averaged if it has averages. Raises BlurkitError if it is neither.
    """
    if not path.name.endswith(".state.pt"):
        return load_checkpoint(path)
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    return state_checkpoint(read_state(path), str(path))


def halved_checkpoint(path: Path) -> Checkpoint:
    """Return `so_far` of a file in half precision."""
    checkpoint = so_far(path)
    networks = {role: halved(state) for role, state in checkpoint.networks.items()}
    return replace(checkpoint, networks=networks)


def widened(state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return the state dict of a network of twice the channels with the same outputs.

    Training then starts from a network that has learned, instead of from noise (Net2WiderNet; Chen
    et al., ICLR 2016). Modulated skip connections are left out, so what a conditioned network
    computes does change.

    Each channel becomes two adjacent ones of the same values. A layer that reads them weighs one of
    them by (1 + s) / 2 and the other by (1 - s) / 2, with an own normal s of deviation `ASYMMETRY`
    per weight.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        key: _wider(key, tensor.float(), generator)
        for key, tensor in state.items()
        if not key.startswith(MODULATION_KEYS)
    }


def _wider(key: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    into, out = (0, 1) if ".up.weight" in key else (1, 0)  # a transposed convolution
    if tensor.ndim == 1:
        return tensor if key.startswith(LAST) else tensor.repeat_interleave(2)
    if not key.startswith(LAST):
        tensor = tensor.repeat_interleave(2, out)
    if key.startswith(FIRST):
        return tensor
    shift = ASYMMETRY * torch.randn(tensor.shape, generator=generator)
    pair = torch.stack([tensor * (1 + shift), tensor * (1 - shift)], into + 1)
    return pair.flatten(into, into + 1) / 2


def widened_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file with its network widened. Raises BlurkitError without one."""
    checkpoint = load_checkpoint(path)
    if checkpoint.system != "msdi" or "deblur" not in checkpoint.networks:
        raise BlurkitError(f"{path}: holds no deblurring network of MSDI-Net")
    wide = {"deblur": widened(checkpoint.networks["deblur"])}
    return Checkpoint(wide, checkpoint.system, provenance=checkpoint.provenance)


# ---- Files changed in place ----------------------------------------------------------------------


def compress(path: Path) -> None:
    """Compress a checkpoint without loss, always to the same bytes.

    torch reads it as before, a little slower. Raises BlurkitError if it is no checkpoint.
    """
    load_checkpoint(path)  # which says in one line what is wrong with a file
    with (
        ZipFile(path) as archive,
        replacing(path) as partial,
        ZipFile(partial, "w", ZIP_DEFLATED, compresslevel=9) as smaller,
    ):
        for record in archive.infolist():
            smaller.writestr(ZipInfo(record.filename), archive.read(record), ZIP_DEFLATED)


def card(path: Path) -> list[str]:
    """Return a line for each kind of training data in a table of `COLUMNS` between tabs.

    Raises BlurkitError if there is no such table in the file.
    """
    try:
        with path.open(newline="") as file:
            head, *rows = csv.reader(file, csv.excel_tab)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BlurkitError(f"{path}: no table of training data can be read") from error
    if tuple(head) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise BlurkitError(f"{path}: needs the columns {', '.join(COLUMNS)}, separated by tabs")
    return [f"{data} ({number}): {use}; terms: {terms}" for data, number, use, terms in rows]


def describe(table: Path, path: Path) -> None:
    """Put the `card` of a table into a checkpoint. Raises BlurkitError if one cannot be read."""
    checkpoint = load_checkpoint(path)
    checkpoint.provenance["trained_on"] = card(table)
    save_checkpoint(checkpoint, path)


def refer(network: Path, checkpoint: Path) -> int:
    """Remove the tensors from an ONNX file that a checkpoint contains; return their size in bytes.

    Raises BlurkitError if the files are not in the same folder, as ONNX demands, if one cannot be
    read, or if the checkpoint contains none of the tensors.
    """
    import onnx  # an optional dependency
    from onnx.external_data_helper import set_external_data

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


# ---- The command ---------------------------------------------------------------------------------

ABOUT = {
    "halve": "Write a checkpoint in half precision. Of the saved state of a running training, the "
    "current weights are written, or their average if it keeps one. Every command takes the "
    "result, for example as --start.",
    "widen": "Double the channels of a deblurring network of MSDI-Net without changing what it "
    "computes; train it by train-deblur --start with twice the --width.",
    "compress": "Compress a checkpoint without loss. Do this last: any program that writes the "
    "file again leaves it uncompressed. An ONNX file cannot refer to a compressed checkpoint.",
    "describe": "State in a checkpoint what it was trained on, and under which terms.",
    "refer": "Make an ONNX file read its weights from a checkpoint beside it. The file is one that "
    "`blurkit export --half` wrote, and works only beside that very checkpoint afterwards. torch "
    "stores tensors uncompressed, so ONNX Runtime reads them without torch.",
}


@program
def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.tools.convert")
    subparsers = parser.add_subparsers(dest="command", required=True)
    commands = {
        name: subparsers.add_parser(name, help=about.partition(".")[0], description=about)
        for name, about in ABOUT.items()
    }
    add_files(commands["halve"], "checkpoint, or running state x.state.pt")
    add_files(commands["widen"], "checkpoint of train-deblur")
    commands["compress"].add_argument("checkpoint", type=Path, help="the checkpoint to compress")
    columns = f"a .tsv with the columns {', '.join(COLUMNS)}"
    commands["describe"].add_argument("table", type=Path, help=columns)
    commands["describe"].add_argument("checkpoint", type=Path, help="the checkpoint to change")
    commands["refer"].add_argument("network", type=Path, help="the ONNX file to change")
    commands["refer"].add_argument("checkpoint", type=Path, help="the checkpoint beside it")
    o = parser.parse_args(arguments)
    if o.command in ("halve", "widen"):
        convert(o, halved_checkpoint if o.command == "halve" else widened_checkpoint)
    elif o.command == "compress":
        compress(o.checkpoint)
    elif o.command == "describe":
        describe(o.table, o.checkpoint)
    else:
        removed, size = refer(o.network, o.checkpoint), o.network.stat().st_size
        say(f"{o.network}: {size:,} bytes; {removed:,} more are read from {o.checkpoint.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
