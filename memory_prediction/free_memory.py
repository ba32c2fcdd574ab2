"""How much memory is free for this process, by the system and its control groups."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path


def free_bytes(root: Path = Path("/")) -> int | None:
    """How much memory this process can still get: of the machine, or of its control groups if they allow less.

    Pages of files that the kernel may drop count as free. `root` is the folder with proc and sys. None if the system
    is not Linux.
    """
    try:
        meminfo = (root / "proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    available = int(re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo, re.MULTILINE)[1]) * 1024
    return max(0, min([available, *_left_in_groups(root)]))


GROUP_FILES = {  # version of control groups -> mount, limit, usage, droppable pages of files
    1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
}


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group of this process still allows, if it has a limit: from its own group up to the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, inside = (1 if controllers else 2), Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container those above its own cannot be read
            yield from _left_in_group(root, version, group)


def _left_in_group(root: Path, version: int, group: Path) -> Iterator[int]:
    """The limit of a group less its usage, if it can be read and has a limit."""
    mount, limit_file, usage_file, droppable = GROUP_FILES[version]
    folder = root / mount / group
    with contextlib.suppress(OSError):
        limit = (folder / limit_file).read_text().strip()
        usage = int((folder / usage_file).read_text())
        found = re.search(rf"^{droppable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        if limit != "max":
            yield int(limit) - usage + (int(found[1]) if found else 0)
