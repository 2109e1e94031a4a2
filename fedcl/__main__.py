"""`python -m fedcl` is `fedcl`."""

import sys

from fedcl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
