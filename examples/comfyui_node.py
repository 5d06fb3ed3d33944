"""A node of ComfyUI that removes motion blur, with the weights that come with blurkit or others.

Install it into ComfyUI's environment, from ComfyUI's folder:

    pip install blurkit
    mkdir custom_nodes/blurkit
    cp comfyui_node.py custom_nodes/blurkit/__init__.py

ComfyUI's images are tensors (batch, height, width, 3) of float32 in [0, 1], sRGB, which are records
of blurkit without the batch. Results are clipped to [0, 1], as ComfyUI's own nodes return them.
"""

import numpy as np
import torch

import blurkit


class RemoveMotionBlur:
    """Deblurs each image of a batch, as `blurkit deblur` does."""

    CATEGORY = "image/restoration"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "deblur"
    DESCRIPTION = "Remove motion blur: estimate the blur and undo it, or run a network."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        """Return the inputs of the node, as ComfyUI asks for them."""
        return {
            "required": {
                "image": ("IMAGE",),
                "method": (["auto", "shake", "network"], {"default": "auto"}),
            },
            "optional": {
                "checkpoint": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "A file, https://... or hf://owner/name/file; empty: blurkit's.",
                    },
                ),
            },
        }

    def deblur(
        self, image: torch.Tensor, method: str = "auto", checkpoint: str = ""
    ) -> tuple[torch.Tensor]:
        """Return the deblurred batch, of the shape and on the device of `image`."""
        model = blurkit.load(checkpoint.strip() or None)
        given = {} if checkpoint.strip() else {"method": method}
        results = [model.deblur(pixels, **given) for pixels in image.float().cpu().numpy()]
        batch = torch.from_numpy(np.stack(results)).clamp(0, 1)
        return (batch.to(image.device, image.dtype),)


NODE_CLASS_MAPPINGS = {"BlurkitRemoveMotionBlur": RemoveMotionBlur}
NODE_DISPLAY_NAME_MAPPINGS = {"BlurkitRemoveMotionBlur": "Remove Motion Blur (blurkit)"}
