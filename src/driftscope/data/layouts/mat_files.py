"""MATLAB's files, which hold numbers and text alone: nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftscope.files import UnreadableFileError
from driftscope.limits import IMAGE_ARRAYS_MB


def read_mat(file: Path) -> dict[str, Any]:
    """The variables of a file, lists of one as what they hold.

    Raises:
        OSError: it cannot be read, or is larger than is taken.
        ValueError: it is damaged, or of MATLAB's form 7.3.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    size = file.stat().st_size
    if size > IMAGE_ARRAYS_MB.num_bytes:
        raise UnreadableFileError(f"it has {size / 1e6:,.1f} MB; {IMAGE_ARRAYS_MB.sentence}", file)
    try:
        return dict(loadmat(file, squeeze_me=True))
    except NotImplementedError:
        raise ValueError(
            f"{file.name} is of MATLAB's form 7.3, which scipy does not read; save it with -v7"
        ) from None
    except (MatReadError, TypeError, EOFError) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from None
