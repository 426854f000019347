"""Bytes, times and ratios in few characters, for people."""

__all__ = ["in_bytes", "in_time", "three_digits"]


def three_digits(value: float | int) -> str:
    """Return a number with three significant digits, without an exponent.

    >>> three_digits(0.01234), three_digits(1.0), three_digits(42.74), three_digits(12345.6)
    ('0.0123', '1.00', '42.7', '12,346')
    """
    if value >= 100:
        return f"{value:,.0f}"
    decimals = 2
    while value and abs(value) * 10**decimals < 99.95:
        decimals += 1
    return f"{value:.{decimals if abs(value) < 10 else 1}f}"


def in_bytes(count: float | int) -> str:
    """Return an amount of memory, in powers of ten.

    >>> in_bytes(950), in_bytes(7.12e6), in_bytes(33.5e9)
    ('950 B', '7.12 MB', '33.5 GB')
    """
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def in_time(milliseconds: float | int) -> str:
    """Return a time.

    >>> in_time(0.25), in_time(1500), in_time(600e3), in_time(7.2e6), in_time(2e8)
    ('0.250 ms', '1.50 s', '10.0 min', '2.00 h', '2.31 d')
    """
    for unit, size, least in (("d", 86.4e6, 86.4e6), ("h", 3.6e6, 3.6e6), ("min", 60e3, 120e3), ("s", 1e3, 1e3)):
        if milliseconds >= least:
            return f"{three_digits(milliseconds / size)} {unit}"
    return f"{three_digits(milliseconds)} ms"
