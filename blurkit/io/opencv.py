"""OpenCV, an optional dependency (`pip install 'blurkit[align]'`), for the modules that need it."""

from types import ModuleType

import numpy as np

from blurkit.errors import BlurkitError


def opencv(purpose: str) -> ModuleType:
    """Return the module cv2. Raises BlurkitError, naming the `purpose`, if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise BlurkitError(
            f"{purpose} needs OpenCV, which is not installed: pip install 'blurkit[align]'"
        ) from error
    # The results of its optical flow depend on the number of threads, and a forked process would
    # wait forever for threads that exist only in its parent.
    cv2.setNumThreads(1)
    return cv2


def gray(cv2: ModuleType, image: np.ndarray) -> np.ndarray:
    """Return the luminance (H, W) of an image (H, W, 1 or 3), of the same type and range."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
