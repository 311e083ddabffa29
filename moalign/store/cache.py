"""Where things that can be made anew are kept, such as the tiny model and embeddings of texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CACHE_VARIABLE: Final = "MOALIGN_CACHE_DIR"


def cache_root(folder: str | Path | None = None) -> Path:
    """Returns `folder` if given, else the folder of MOALIGN_CACHE_DIR, else the user's cache folder of moalign."""
    import platformdirs

    chosen = folder or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("moalign", appauthor=False)
    return Path(chosen).expanduser()
