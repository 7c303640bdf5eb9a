"""A terminal for full-screen programs: it keeps what is written, and answers the questions that such programs ask before they start."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading

ANSWERS = {
    # The cursor's place, the terminal's kind, its keyboard protocol, its colours.
    b"\x1b[6n": b"\x1b[1;1R",
    b"\x1b[c": b"\x1b[?62;c",
    b"\x1b[?u": b"\x1b[?0u",
    b"\x1b]10;?": b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
    b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\",
}
SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>78])")


class Terminal:
    """`follower` is the program's side."""

    def __init__(self) -> None:
        self.leader, self.follower = pty.openpty()
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.written = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        while True:
            try:
                got = os.read(self.leader, 65536)
            except OSError:
                return
            self.written += got
            for question, answer in ANSWERS.items():
                if question in got:
                    os.write(self.leader, answer)

    def text(self) -> str:
        """What was written, without control sequences."""
        return SEQUENCE.sub(b" ", self.written).decode(errors="replace")

    def close(self) -> None:
        """The reader ends with the last process that has the terminal open."""
        os.close(self.follower)
        self.reader.join(5)
