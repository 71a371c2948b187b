"""Keeps memory that was freed, so that the next step finds it ready."""

import ctypes
import platform

# Of glibc's malloc.h: the parameters' numbers, and the largest value of one.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1


def keep_freed() -> None:
    """Makes glibc keep what this process frees; to be called before threads start.

    On the CPU XLA asks for the memory of each step anew, hundreds of megabytes, and
    frees it after. glibc gives pieces of that size back to the system, which clears
    every page of them again when it is next touched, which is much of the time of a
    small step. Kept, they need to be in the one arena that can grow to any size. The
    peak is not changed by it. Another C library is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    mallopt(_ARENA_MAX, 1)
