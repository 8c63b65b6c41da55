"""Physical memory: frame descriptors, zones, the buddy system and per-CPU frame lists."""
