"""Freed memory stays in the process: asked of glibc where there is one, and nothing is done elsewhere."""

import ctypes
from pathlib import Path

import pytest

from ddpm_course import memory


def test_glibc_is_told_to_keep_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(what: int, value: int) -> int:
            asked.append((what, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert memory.keep_memory() is True
    assert asked == [(-1, 2**30), (-3, 2**25)]  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


def test_a_library_that_refuses_or_is_missing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        @staticmethod
        def mallopt(what: int, value: int) -> int:
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Refusing)
    assert memory.keep_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # macOS: no mallopt
    assert memory.keep_memory() is False


def test_the_heap_is_put_into_whole_large_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[int, int, int]] = []

    class Library:
        @staticmethod
        def madvise(begin: ctypes.c_void_p, length: ctypes.c_size_t, advice: int) -> int:
            asked.append((begin.value, length.value, advice))
            return refusal

    maps = tmp_path / "maps"
    maps.write_text("55aa00001000-55aa00002000 r--p 0 00:00 1 /python\n55aa00100000-55aa00900000 rw-p 00000000 00:00 0      [heap]\n")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    refusal = 0
    assert memory.large_pages(maps) == 3 * 2**21
    assert asked == [(0x55AA00200000, 3 * 2**21, 25)]  # inside the heap, from one multiple of 2 MiB to another
    refusal = -1
    assert memory.large_pages(maps) == 0
    maps.write_text("55aa00100000-55aa00180000 rw-p 00000000 00:00 0      [heap]\n")  # smaller than a page
    assert memory.large_pages(maps) == 0 and len(asked) == 2
    assert memory.large_pages(tmp_path / "none") == 0  # macOS: no such file


def test_large_blocks_count_wherever_they_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    class Library:
        @staticmethod
        def madvise(begin: ctypes.c_void_p, length: ctypes.c_size_t, advice: int) -> int:
            asked.append(begin.value)
            return -1 if begin.value == 0x7F0010000000 else 0

    lines = [
        "7f0000000000-7f0002000000 rw-p 00000000 00:00 0 ",  # 32 MiB
        "7f0010000000-7f0014000000 rw-p 00000000 00:00 0 ",  # refused
        "7f0020100000-7f0022100000 rw-p 00000000 00:00 0 ",  # fewer than 32 MiB of whole pages
        "7f0030000000-7f0034000000 r--p 00000000 00:00 0 ",  # read only
        "7f0040000000-7f0044000000 rw-p 00000000 08:01 77                 /a/file",
        "7f0050000000-7f0054000000 rw-p 00000000 00:00 0                  [stack]",
        "7f0060000000-7f0064000000 rw-s 00000000 00:01 9                  /dev/shm/of processes",
    ]
    maps = tmp_path / "maps"
    maps.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert memory.large_pages(maps) == 2**25 and asked == [0x7F0000000000, 0x7F0010000000]


def test_large_pages_change_no_number_in_the_heap() -> None:
    blocks = [bytes([k]) * 2**20 for k in range(8)]
    assert memory.large_pages() >= 0
    assert all(block == bytes([k]) * 2**20 for k, block in enumerate(blocks))
