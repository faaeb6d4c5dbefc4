"""What spark-submit is given: `spark-submit … analytics/job.py extract --out …`."""

import sys

from herald_spark.cli import main

sys.exit(main())
