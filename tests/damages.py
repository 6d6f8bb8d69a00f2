"""What may have become of a file: damages that any file can have."""

import os
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def written(content: bytes) -> Damage:
    """Replace the content."""
    return lambda file: file.write_bytes(content)


def in_place_of(make: Damage) -> Damage:
    """Put something else in the file's place."""

    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def torn(file: Path) -> None:
    """Keep the first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


ANY: dict[str, Damage] = {
    "missing": Path.unlink,
    "empty": written(b""),
    "torn": torn,
    "no text": written(b"\xff\xfe\0\xd8"),
    "nested": written(b"[" * 10**5),
    "list": written(b"[1]"),
    "null": written(b"null"),
    "FIFO": in_place_of(os.mkfifo),
    "link": lambda file: file.symlink_to(file.rename(file.parents[2] / file.name)),
    "folder": in_place_of(os.mkdir),
}
if os.geteuid() == 0:  # no other user makes devices
    ANY["device"] = in_place_of(lambda file: os.mknod(file, 0o20666, os.makedev(1, 5)))
