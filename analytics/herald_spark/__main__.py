import sys

from herald_spark.cli import main

sys.exit(main())
