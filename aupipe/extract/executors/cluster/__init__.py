"""Jobs on many machines through Dask: the run places them, an agent on each machine runs them in worker processes.

Dask carries sealed bytes: jobs there, records of what came of them back. Arrays never pass through it; the worker
processes read the videos and write the store, which all machines see at the same path.
"""
