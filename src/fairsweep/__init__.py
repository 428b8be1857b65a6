"""fairsweep: which optimizer, at which learning rate? An honest answer, fast."""
