"""Helpers of the nodes that know nothing of ComfyUI."""
