"""Write the golden losses anew: python -m tests.golden [FAMILY ...]"""

import json
import sys

from tests.golden import FOLDER, ROWS, losses

for family in sys.argv[1:] or ROWS:
    (FOLDER / f"{family}.json").write_text(json.dumps(losses(family), indent=1) + "\n")
    print(f"{family}.json")
