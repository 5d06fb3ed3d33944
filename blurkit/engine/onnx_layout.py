"""How a network in an ONNX file of another program takes and gives images. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

ValueRange = Literal["0..1", "0..255", "-1..1"]
RANGES: dict[ValueRange, tuple[float, float]] = {
    "0..1": (0.0, 1.0),
    "0..255": (0.0, 255.0),
    "-1..1": (-1.0, 1.0),
}
"""The values of black and white, in the order in which they are tried."""


@dataclass(frozen=True)
class OnnxLayout:
    """How a network takes and gives images.

    `input` and `output` are their names. The input is of NumPy's `type`, (N, H, W, C) if
    `channels_last`, else (N, C, H, W), with `channels` 1 (gray) or 3 (RGB); N is 1 if `single`.
    Height and width are `sides` where these are not None, else multiples of `multiple` and at least
    `minimum`. The values of the input are in the range `given`, those of the output in `made`.
    """

    input: str
    output: str
    type: str
    channels_last: bool
    channels: int
    single: bool
    sides: tuple[int | None, int | None]
    minimum: int
    multiple: int
    given: ValueRange = "0..1"
    made: ValueRange = "0..1"

    @property
    def fixed(self) -> int:
        """The side of the largest square in a fixed size, 0 if the size is not fixed."""
        return min((side for side in self.sides if side is not None), default=0)

    def describe(self) -> dict[str, Any]:
        """Return the layout as plain values."""
        size = {"tile": self.fixed} if self.fixed else {"multiple": self.multiple}
        return {
            "layout": "NHWC" if self.channels_last else "NCHW",
            "type": self.type,
            "colour": "gray" if self.channels == 1 else "RGB",
            "range": self.given if self.given == self.made else f"{self.given} to {self.made}",
            **size,
        }

    def summary(self) -> str:
        """Return `describe` as one line."""
        return ", ".join(f"{key} {value}" for key, value in self.describe().items())

    def run(self, session: Any, images: np.ndarray) -> np.ndarray:
        """Return the network's images for `images`, both (N, 3, H, W) float32 in [0, 1].

        A network for gray images runs on each channel on its own. Raises what ONNX Runtime raises.
        """
        planes = images.reshape(-1, self.channels, *images.shape[2:])
        parts = planes[:, None] if self.single else [planes]
        results = [session.run([self.output], {self.input: self.encode(p)})[0] for p in parts]
        return self.decode(np.concatenate(results), images.shape)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, C, H, W) in [0, 1] as the network takes them.

        What they lack of a fixed size is reflected.
        """
        sides = zip(self.sides, images.shape[2:], strict=True)
        more = [(0, (wanted or side) - side) for wanted, side in sides]
        low, high = RANGES[self.given]
        values = np.pad(images, ((0, 0), (0, 0), *more), "symmetric") * (high - low) + low
        if self.type == "uint8":
            values = values.clip(0, 255).round()
        values = values.transpose(0, 2, 3, 1) if self.channels_last else values
        return np.ascontiguousarray(values, self.type)

    def decode(self, result: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the network's result as images of `shape`, (N, 3, H, W) float32 in [0, 1]."""
        values = result.transpose(0, 3, 1, 2) if self.channels_last else result
        low, high = RANGES[self.made]
        values = (values[..., : shape[2], : shape[3]].astype(np.float32) - low) / (high - low)
        return np.asarray(values, np.float32).reshape(shape)
