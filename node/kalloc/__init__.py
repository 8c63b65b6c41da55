"""The kernel's object allocators: SLUB, SLAB and SLOB behind one interface, kmalloc, and vmalloc."""
