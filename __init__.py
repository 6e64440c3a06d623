"""TLB-VFI video frame interpolation for ComfyUI: what ComfyUI reads when it loads this folder.

Outside ComfyUI, as when a test runner imports the folder, nothing is imported and the mappings are empty.
"""

import sys
from importlib.util import find_spec

WEB_DIRECTORY = "./web"

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}

if __package__ and ("folder_paths" in sys.modules or find_spec("folder_paths") is not None):
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
