"""The page: a plan or a run as people see it, in one file or live on loopback."""
