"""Trains the runs of a sweep on all cores of a machine, or on the machines of a cluster."""
