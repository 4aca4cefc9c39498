"""Freed memory stays in the process: asked of glibc where there is one, and nothing is done elsewhere."""

import ctypes

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
