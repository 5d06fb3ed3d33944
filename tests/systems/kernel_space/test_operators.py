"""What a blind search blurs with: convolutions, a kernel space, PULSE's downsampling."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from torch.nn import functional as F

from blurkit.systems.kernel_space.operators import Convolution, Downsampling, find_shift
from tests.systems.kernel_space.searches import Moving, context, convolved, photo


def test_convolution_is_a_true_one_of_what_the_kernel_reaches() -> None:
    rng = np.random.default_rng(0)
    images, kernels = rng.random((2, 3, 20, 23)), rng.random((2, 1, 5, 5))
    blurred = Convolution(5).blur(torch.from_numpy(images), torch.from_numpy(kernels))
    for image, kernel, found in zip(images, kernels, blurred, strict=True):
        for channel in range(3):
            wanted = convolve2d(image[channel], kernel[0], mode="valid")
            np.testing.assert_allclose(found[channel].numpy(), wanted, atol=1e-10)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-11, 2)])
def test_an_image_that_lies_elsewhere_than_its_photo_is_found(down: int, right: int) -> None:
    image = torch.from_numpy(photo(160, 192).astype(np.float32) / 255).permute(2, 0, 1)[None]
    blurry = F.avg_pool2d(image, 7, 1, 3).roll((down, right), (2, 3))
    assert find_shift(image, blurry) == (down, right)
    assert find_shift(torch.full_like(image, torch.nan), blurry)  # any, but no error


@pytest.mark.parametrize("place", [(0, 0), (8, 0), (4, 8)])
def test_a_kernel_far_off_its_middle_is_centred_whole(place: tuple[int, int]) -> None:
    """And the image is moved the other way, so that both blur to the same."""
    operator, image = Convolution(9), torch.rand(1, 3, 40, 48)
    blur = torch.zeros(1, 1, 9, 9)
    blur[0, 0, place[0], place[1]] = 0.8
    blur[0, 0, 8 - place[0], 8 - place[1]] = 0.2  # would leave the kernel at the other side
    photo = torch.empty(1, 3, 32, 40)
    picture, kernel = operator.crop_to_photo(image, blur, photo)
    blurred = operator.blur(image, blur)[0].permute(1, 2, 0).numpy()
    again = convolved(picture[0].permute(1, 2, 0).numpy(), kernel[0, 0].numpy())
    side = (kernel.shape[-1] - 1) // 2
    np.testing.assert_allclose(again, blurred[side:-side, side:-side], atol=1e-6)
    broken, _ = operator.crop_to_photo(image, torch.full_like(blur, torch.nan), photo)
    assert broken.shape == (1, 3, 32, 40)


def test_a_released_code_is_a_start(tmp_path: Path) -> None:
    code = torch.randn(1, 16, 2, 2)
    torch.save(code, tmp_path / "kernel.pth")
    shared = context("kernel-space", start_code_file=str(tmp_path / "kernel.pth"))
    start = shared.operator.starting_blur(torch.zeros(1, 3, 256, 384))
    assert start.shape == (1, 16, 2, 3)
    # Between two places in the middle lies their mean; at the border is what was there.
    assert torch.allclose(start[..., 1], code.mean(3))
    assert torch.allclose(start[..., 0], code[..., 0])


def test_downsampling_is_bicubic() -> None:
    image = photo(64, 96)
    values = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
    made = Downsampling(4).blur(values, torch.zeros(1, 1))[0].permute(1, 2, 0).numpy()
    # Pillow's window is as long, with a = -0.5 too; its border is another.
    known = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BICUBIC))
    assert made.shape == known.shape
    np.testing.assert_allclose(255 * made[2:-2, 2:-2], known[2:-2, 2:-2], atol=1)


def test_a_kernel_is_shown_enlarged() -> None:
    kernel = torch.zeros(1, 1, 5, 5)
    kernel[0, 0, 1, 3], kernel[0, 0, 2, 2] = 0.5, 0.25
    shown = Convolution(5).draw_blur(kernel)
    assert shown.shape == (40, 40, 1) and shown.dtype == np.uint8
    assert (shown[8:16, 24:32] == 255).all() and (shown[16:24, 16:24] == 128).all()
    assert shown.astype(int).sum() == 64 * (255 + 128)


def test_a_code_is_shown_by_what_it_does_to_dots() -> None:
    operator = context("kernel-space").operator
    operator.network = Moving(operator.network, (2, 1))
    shown = operator.draw_blur(torch.zeros(1, 16, 2, 3))
    assert shown.shape == (256, 384, 1)
    rows, columns = np.nonzero(shown[..., 0])
    assert set(rows) == {34 + 64 * n + d for n in range(4) for d in (-1, 0, 1)}
    assert set(columns) == {33 + 64 * n + d for n in range(6) for d in (-1, 0, 1)}
    assert (shown[rows, columns] == 255).all()
