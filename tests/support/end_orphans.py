"""Ends what a test session started and left behind: whatever names its folder, once the session itself is gone.

Tests start servers and nodes that outlive the command that started them. A session that is killed cannot stop them, and
a study that nobody looks at would train for hours.
"""

import sys

import psutil


def main(folder: str) -> None:
    """Wait until standard input is closed, as it is when the session ends in any way, and look for its processes."""
    sys.stdin.read()
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{folder}/" in word for word in process.info["cmdline"] or []):
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1])
