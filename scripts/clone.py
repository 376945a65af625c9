"""Imported first by the scripts: puts this clone before an installed copy of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
