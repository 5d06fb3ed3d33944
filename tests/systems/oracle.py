"""What local statistics are held to, by scipy."""

from __future__ import annotations

import numpy as np
import scipy.ndimage


def local_means(image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Means of (H, W, C) over windows cut to the image; at the border the nearest whole one's."""
    height, width = (min(w, side) for w, side in zip(window, image.shape[:2], strict=True))
    means = scipy.ndimage.uniform_filter(image.astype(np.float64), (height, width, 1))
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    whole = means[height // 2 :, width // 2 :][:rows, :columns]
    missing = height - 1, width - 1
    sides = [(count // 2, count - count // 2) for count in missing]
    return np.pad(whole, (*sides, (0, 0)), mode="edge")
