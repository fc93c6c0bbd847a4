"""Shares of the slow tests: `pytest --share 2/6` runs the quick tests and a sixth of the slow."""

import re
import zlib


class Share:
    """The share `i` of `n`, as in "2/6"; together, the shares hold each test once.

    A test's share follows from its name alone: it is the same on every machine, and stays when
    other tests come and go.
    """

    def __init__(self, text: str):
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
        self.number, self.count = map(int, found.groups()) if found else (1, 0)
        if self.number > self.count:
            raise ValueError(f"a share is i/n with i from 1 to n, as 2/6. Received: {text!r}")

    def holds(self, name: str) -> bool:
        """Whether the test of this name is in the share."""
        # Not `hash`, which differs from one process to the next.
        return zlib.crc32(name.encode()) % self.count == self.number - 1
