"""The run of `blurkit export`: writes the file and says what it takes."""

from __future__ import annotations

from importlib.util import find_spec

from blurkit.cli.common import print_json
from blurkit.cli.export import ExportOptions
from blurkit.errors import BlurkitError
from blurkit.io.writing import refuse_existing
from blurkit.reports.progress import say


def export_network(source: str, options: ExportOptions) -> None:
    """Export a network of the checkpoint `source`. Raises BlurkitError if it cannot be exported."""
    refuse_existing(options.output, options.force)
    if find_spec("onnx") is None:
        raise BlurkitError("exporting requires pip install 'blurkit[onnx]'")

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.tasks.export import to_onnx

    checkpoint, o = load_checkpoint(source), options
    about = to_onnx(checkpoint, o.output, o.use, o.role, o.half, o.force)
    if options.json:
        sizes = {"tile": about.tile, "minimum": about.minimum, "multiple": about.multiple}
        print_json({"file": str(options.output), "use": about.use, **sizes})
    fixed = about.multiple == about.tile
    takes = f"{about.tile}x{about.tile} only" if fixed else f"multiples of {about.multiple}"
    say(f"wrote {options.output}: {about.use}, images of {takes} pixels", options.quiet)
