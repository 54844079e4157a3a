"""What the visible GPUs are called, as the driver says."""

from __future__ import annotations

import ctypes

from gpuenc.cuda import probe

_MOST_CHARACTERS = 256


def device_names() -> tuple[str, ...]:
    """Return the names of the visible GPUs, by index; an empty one where the driver does not say."""
    count = probe.device_count()
    driver = probe.driver_library() if count else None
    if driver is None:
        return ("",) * count
    names = []
    for index in range(count):
        room = ctypes.create_string_buffer(_MOST_CHARACTERS)
        failed = driver.cuDeviceGetName(room, _MOST_CHARACTERS, index)
        names.append("" if failed else room.value.decode("ascii", "replace"))
    return tuple(names)
