# SPDX-License-Identifier: Apache-2.0
"""``python -m uniformer_mm``: the console command ``uniformer-mm``."""

import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
