"""Threads that work through a tree, and memory that they hand round.

A thread that waits for some tasks works on them, or on those that wait longest: the tree is walked
in depth, which keeps little in memory, and no thread is idle while there is work.
"""

from __future__ import annotations

import numpy as np
import threading
import torch

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from .blas import one_thread_each
from .symbolic import Plan

__all__ = ["Crew", "Pool", "downward", "upward"]

Task = Callable[[], None]


class Pool:
    """Arrays that are used again: fresh memory is slow.

    Arguments:
        dtype: The precision of their numbers.
    """

    def __init__(self, dtype: type[np.floating] = np.float64) -> None:
        self.dtype = dtype
        self._lock = threading.Lock()
        self._free: list[np.ndarray] = []

    def take(self, size: int) -> np.ndarray:
        """Return an array of at least some numbers, whatever they are."""
        with self._lock:
            sizes = [(len(a), k) for k, a in enumerate(self._free) if size <= len(a) <= 2 * size]
            if sizes:
                return self._free.pop(min(sizes)[1])
        return np.empty(size, self.dtype)

    def give(self, *arrays: np.ndarray) -> None:
        """Take arrays back."""
        with self._lock:
            self._free += [a for a in arrays if len(a)]

    def clear(self) -> None:
        """Forget the arrays that are not in use."""
        with self._lock:
            self._free.clear()


class _Group:
    """Tasks that someone waits for."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks, self.left = deque(tasks), len(tasks)
        self.errors: list[Exception] = []


class Crew:
    """As many threads as torch uses, the caller's among them, until the end of the ``with``."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._groups: list[_Group] = []
        self._all = _Group([])
        self._limit = one_thread_each()
        self._helpers: list[threading.Thread] = []

    def __enter__(self) -> Crew:
        self._limit.__enter__()
        self._all.left = 1
        count = torch.get_num_threads() - 1
        work = partial(self._work, self._all)
        self._helpers = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        for helper in self._helpers:
            helper.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._ready:
            self._all.left = 0
            self._ready.notify_all()
        for helper in self._helpers:
            helper.join()
        self._limit.__exit__(None, None, None)

    def together(self, tasks: Sequence[Task]) -> None:
        """Do some tasks, in any order, and return when all are done."""
        if len(tasks) <= 1 or not self._helpers:
            for task in tasks:
                task()
            return
        group = _Group(tasks)
        with self._ready:
            self._groups.append(group)
            self._ready.notify_all()
        self._work(group)
        if group.errors:
            raise group.errors[0]

    def _work(self, own: _Group) -> None:
        """Work until a group is done."""
        while True:
            with self._ready:
                group = self._choose(own)
                while group is None and own.left:
                    self._ready.wait()
                    group = self._choose(own)
                if group is None:
                    return
                task = group.tasks.popleft()
                if not group.tasks and group in self._groups:
                    self._groups.remove(group)
            self._do(task, group)

    def _choose(self, own: _Group) -> _Group | None:
        if own.tasks or not own.left:
            return own if own.tasks else None
        return self._groups[0] if self._groups else None

    def _do(self, task: Task, group: _Group) -> None:
        try:
            task()
        except Exception as error:
            group.errors.append(error)
        finally:
            with self._ready:
                group.left -= 1
                self._ready.notify_all()


def upward(plan: Plan, crew: Crew, visit: Callable[[int], None]) -> None:
    """Visit subtrees of one thread, and fronts above them, children before parents."""

    def walk(t: int) -> None:
        if not plan.whole[t]:
            crew.together([partial(walk, c) for c in plan.children(t)])
        visit(t)

    if len(plan.whole):
        walk(len(plan.whole) - 1)


def downward(
    plan: Plan, crew: Crew, visit: Callable[[int], None], leave: Callable[[int], None]
) -> None:
    """Visit fronts, and subtrees of one thread below them, parents before children; leave a front
    when its children are done.
    """

    def walk(t: int) -> None:
        visit(t)
        if not plan.whole[t]:
            crew.together([partial(walk, c) for c in plan.children(t)])
            leave(t)

    if len(plan.whole):
        walk(len(plan.whole) - 1)
