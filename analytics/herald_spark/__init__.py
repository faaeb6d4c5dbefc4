"""Herald's topic in Spark: the events as a frame, each once, and jobs that use it.

`topics` reads ranges of the topic, `events` makes columns of records and says which are
duplicates, `filters` chooses and rewrites, `files` writes; `batch`, `stream` and `report` are the
jobs, and `cli` their command line. Nothing here runs in Spark's Python workers: all expressions
are Spark's own.
"""
