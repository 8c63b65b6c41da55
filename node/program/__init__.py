"""Workload programs: the line-based language in which a simulated machine and a real one run the same thing."""
