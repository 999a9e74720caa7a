"""What is told of a file system comes from the innermost mount around a path."""

from pathlib import Path

import pytest

from serving.checking.filesystems import maybe_flaw, maybe_mounted

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
23 22 0:23 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=1024k
24 22 8:1 / /data rw,noatime shared:2 master:1 - ext4 /dev/sda1 rw,errors=remount-ro
25 24 8:2 / /data/loose rw - ext4 /dev/sdb1 rw,nobarrier
26 24 8:3 / /data/with\040space rw - xfs /dev/sdc1 rw
27 24 0:40 / /data/with\040space/fast rw - tmpfs tmpfs rw
28 22 0:41 / /hidden rw - tmpfs tmpfs rw
29 28 8:4 / /hidden rw - ext4 /dev/sdd1 rw
30 22 0:42 / /build rw - overlay overlay rw,lowerdir=/l,volatile
""".lstrip()


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    (tmp_path / "mountinfo").write_text(MOUNTS, "utf-8")
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [
        ("/anywhere", "/", "overlay"),
        ("/dev/shm/ledger", "/dev/shm", "tmpfs"),
        ("/data", "/data", "ext4"),
        ("/data/ledger", "/data", "ext4"),
        ("/database", "/", "overlay"),
        ("/data/with space/ledger", "/data/with space", "xfs"),
        ("/data/with space/fast/ledger", "/data/with space/fast", "tmpfs"),
        ("/hidden/ledger", "/hidden", "ext4"),
    ],
)
def test_the_innermost_mount_counts(mounts: Path, path: str, place: str, kind: str) -> None:
    found = maybe_mounted(Path(path), mounts)
    assert found is not None
    assert (str(found.place), found.kind) == (place, kind)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/data/ledger", ""),
        ("/dev/shm/ledger", "memory"),
        ("/data/loose/ledger", "nobarrier"),
        ("/anywhere", "container"),
        ("/build/ledger", "nothing is synced"),
    ],
)
def test_what_does_not_stay_is_told(mounts: Path, path: str, said: str) -> None:
    flaw = maybe_flaw(Path(path), mounts)
    assert (said in flaw) if said else (flaw == "")


def test_a_link_is_judged_by_where_it_leads(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/shm/ledger")
    assert "memory" in maybe_flaw(tmp_path / "link", mounts)


def test_where_nothing_is_known_nothing_is_told(tmp_path: Path) -> None:
    assert maybe_flaw(tmp_path, tmp_path / "nothing") == ""


def test_this_machine_says_where_its_memory_is() -> None:
    found = maybe_mounted(Path("/proc"))
    assert found is None or found.kind == "proc"
