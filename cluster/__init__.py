"""The fleet: command line, configuration, coordinator, actors, supervision and results. No kernels here."""
