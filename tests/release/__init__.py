"""What goes to the ComfyUI registry, and whether it is ready: `python tasks.py release --check`."""
