"""``python -m tlbvfi``."""

from .cli import entry

if __name__ == "__main__":
    entry()
