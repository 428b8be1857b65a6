"""Our sweeper, for Hydra to find."""
