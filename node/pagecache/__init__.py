"""Pages of files and of shared memory: inodes, and the tree in which each keeps its pages."""
