"""Where the runs of a sweep execute: in this process, on the cores of a machine, on a cluster."""
