"""A small network of one's own, for `paper_week.sh`: at a quarter of the image's resolution."""

from torch import Tensor, nn


class Net(nn.Module):
    """Restores images (N, 3, H, W) in [0, 1] by `blocks` residual blocks of `width` channels."""

    def __init__(self, width: int = 24, blocks: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
            )
            for _ in range(blocks)
        )
        last = nn.Conv2d(width, 48, 3, padding=1)
        nn.init.zeros_(last.weight)  # it begins with the blurry image as its result
        nn.init.zeros_(last.bias)
        self.last = nn.Sequential(last, nn.PixelShuffle(4))

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored images."""
        x = self.first(image)
        for block in self.blocks:
            x = x + block(x)
        restored: Tensor = image + self.last(x)
        return restored
