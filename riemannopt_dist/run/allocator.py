"""How a worker's C library keeps the memory that gradients take."""

# A process that frees and takes the same large blocks for every gradient spends a third of its time on page
# faults unless the C library keeps them (glibc; ignored elsewhere).
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # one for all threads: each would keep blocks of its own, and only small ones
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
