"""The simulator of one machine: kernels over one State, in rooms that follow the chapters of the subject."""
