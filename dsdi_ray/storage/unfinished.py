"""What is unfinished lies hidden beside its place-to-be, as ``.NAME.ID.SUFFIX``."""

import glob
from pathlib import Path


def unfinished_beside(out: Path, *, num_id_characters: int, suffix: str) -> list[Path]:
    """Unfinished work that was to go to a place, and to no other of a similar name.

    Args:
        out: The place.
        num_id_characters: Of the id, in hexadecimal.
        suffix: What such work ends in, without the dot.
    """
    pattern = f".{glob.escape(out.name)}.{'[0-9a-f]' * num_id_characters}.{suffix}"
    return sorted(out.parent.glob(pattern))
