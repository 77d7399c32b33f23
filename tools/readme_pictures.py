"""Draw the README's pictures from a finished study.

python tools/readme_pictures.py demo-out
"""

from __future__ import annotations

import sys
from pathlib import Path

from driftscope.analysis import answer
from driftscope.opened_study import Study
from driftscope.report.files import study_figures
from driftscope.report.style import save_figure

PICTURES = Path(__file__).parents[1] / "docs" / "images"
WANTED = {"learning_rate": "demo", "frontier": "demo-frontier", "attention": "demo-attention"}


def main(study_folder: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    study = Study(Path(study_folder))
    tables = study.tables()
    for name, figure in study_figures(tables, [answer("frontier", tables)], study.records()):
        for start, picture in WANTED.items():
            if name.startswith(start):
                print(*save_figure(figure, PICTURES / picture, ("png",)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
