"""Experiments (*.yaml), models of workloads, and recorded data (data/)."""
