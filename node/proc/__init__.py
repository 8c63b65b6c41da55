"""What files of /proc say about memory: one file here for each there."""
