import sys

from dermedge.cli import main

sys.exit(main())
