"""What of a trace two runs share: not how fast the machine was, nor where blocks of the log ended."""

MACHINE = {"images_per_s", "tflops", "data_wait", "memory_gib"}


def computed(lines):
    """The lines without what depends on the machine."""
    return [{key: value for key, value in line.items() if key not in MACHINE} for line in lines]


def per_step(lines):
    """The lines without what stands only in a block's last one."""
    keys = set.intersection(*(set(line) for line in lines))
    return [{key: line[key] for key in line if key in keys - MACHINE} for line in lines]
