"""Dense BLAS and LAPACK for compiled functions, from the library that scipy ships.

The routines are called by symbol, so that what calls them is cached on disk. A matrix is a flat
array, the place of its first number, and its stride: numbers of a column follow each other.
Only the lower triangle of a symmetric or triangular matrix is read or written. Arrays are all in
double precision, or all in single precision.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import llvmlite.binding as llvm
import llvmlite.ir as ir
import scipy.linalg.cython_blas
import scipy.linalg.cython_lapack
import threading

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address
from threadpoolctl import ThreadpoolController
from typing import Any

from ..compiled import compiled, instruction

__all__ = [
    "downdate",
    "factorise",
    "gram_down",
    "invert",
    "multiply",
    "multiply_vector",
    "one_thread_each",
    "solve_left",
    "solve_right",
    "solve_vector",
    "symmetric_multiply",
]

BYTE, INT = ir.IntType(8), ir.IntType(32)
PRECISIONS = {types.float32: "s", types.float64: "d"}
NO, YES, LOWER, LEFT, RIGHT, PLAIN = (ord(letter) for letter in "NTLLRN")


def _slot(context: Any, builder: Any, wanted: Any, value: Any, given: Any) -> Any:
    """Put a scalar in memory, as Fortran reads it by address."""
    slot = cgutils.alloca_once(builder, context.get_value_type(wanted))
    builder.store(context.cast(builder, value, given, wanted), slot)
    return builder.bitcast(slot, BYTE.as_pointer())


def _address(context: Any, builder: Any, kind: Any, value: Any, place: Any) -> Any:
    """The address of one number of an array."""
    array = context.make_array(kind)(context, builder, value)
    return builder.bitcast(builder.gep(array.data, [place]), BYTE.as_pointer())


def _fortran(module: str, name: str, kinds: str) -> Callable[..., Any]:
    """A routine as a numba intrinsic of one tuple: ``c`` a letter, ``i`` an integer, ``r`` a
    number, ``a`` an array and the place of its first number.

    Routines whose last kind is ``o`` (an output) return that integer. The arrays tell whether the
    numbers are in double or in single precision.
    """
    for letter in PRECISIONS.values():
        address = get_cython_function_address(module, letter + name)
        llvm.add_symbol(f"matheron_{letter}{name}", address)
    count, informs = len(kinds), kinds.endswith("o")

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        values = cgutils.unpack_tuple(builder, given[0])
        real = next(k.dtype for k in signature.args[0].types if isinstance(k, types.Array))
        wanted = {"c": types.int8, "i": types.int32, "r": real}
        sorts = iter(zip(values, signature.args[0].types, strict=True))
        out = cgutils.alloca_once_value(builder, ir.Constant(INT, 0))
        addresses = []
        for kind in kinds:
            if kind == "o":
                addresses.append(builder.bitcast(out, BYTE.as_pointer()))
                continue
            value, sort = next(sorts)
            if kind != "a":
                addresses.append(_slot(context, builder, wanted[kind], value, sort))
                continue
            place, integer = next(sorts)
            place = context.cast(builder, place, integer, types.int64)
            addresses.append(_address(context, builder, sort, value, place))
        shape = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer()] * count)
        routine = cgutils.get_or_insert_function(
            builder.module, shape, f"matheron_{PRECISIONS[real]}{name}"
        )
        builder.call(routine, addresses)
        return builder.load(out) if informs else context.get_dummy_value()

    def call(typing, arguments):
        return (types.int32 if informs else types.none)(arguments), generate

    return instruction(call)


BLAS, LAPACK = scipy.linalg.cython_blas.__name__, scipy.linalg.cython_lapack.__name__
_potrf = _fortran(LAPACK, "potrf", "ciaio")
_potri = _fortran(LAPACK, "potri", "ciaio")
_trsm = _fortran(BLAS, "trsm", "cccciiraiai")
_syrk = _fortran(BLAS, "syrk", "cciirairai")
_gemm = _fortran(BLAS, "gemm", "cciiiraiairai")
_symm = _fortran(BLAS, "symm", "cciiraiairai")
_trsv = _fortran(BLAS, "trsv", "ccciaiai")
_gemv = _fortran(BLAS, "gemv", "ciiraiairai")


@compiled
def factorise(n, a, at, stride):
    """Replace a matrix by its Cholesky factor; the first pivot that is not positive, or zero."""
    return _potrf((LOWER, n, a, at, stride))


@compiled
def invert(n, a, at, stride):
    """Replace a Cholesky factor by the inverse of its matrix."""
    return _potri((LOWER, n, a, at, stride))


@compiled
def solve_right(m, n, turned, t, t_at, t_stride, b, b_at, b_stride):
    """Replace B, with shape (m, n), by B T^-1, or by B T'^-1 if turned."""
    how = YES if turned else NO
    _trsm((RIGHT, LOWER, how, PLAIN, m, n, 1.0, t, t_at, t_stride, b, b_at, b_stride))


@compiled
def solve_left(m, n, turned, t, t_at, t_stride, b, b_at, b_stride):
    """Replace B, with shape (m, n), by T^-1 B, or by T'^-1 B if turned."""
    how = YES if turned else NO
    _trsm((LEFT, LOWER, how, PLAIN, m, n, 1.0, t, t_at, t_stride, b, b_at, b_stride))


@compiled
def solve_vector(n, turned, t, t_at, t_stride, b, b_at):
    """Replace a vector by T^-1 b, or by T'^-1 b if turned."""
    how = YES if turned else NO
    _trsv((LOWER, how, PLAIN, n, t, t_at, t_stride, b, b_at, 1))


@compiled
def downdate(n, k, a, a_at, a_stride, c, c_at, c_stride):
    """Take A A' from C, with A of shape (n, k)."""
    _syrk((LOWER, NO, n, k, -1.0, a, a_at, a_stride, 1.0, c, c_at, c_stride))


@compiled
def multiply(
    m, n, k, a_turned, b_turned, alpha, a, a_at, a_stride, b, b_at, b_stride,
    beta, c, c_at, c_stride,
):  # fmt: skip
    """C = alpha A B + beta C, with C of shape (m, n) and k inner terms."""
    p, q = YES if a_turned else NO, YES if b_turned else NO
    _gemm((p, q, m, n, k, alpha, a, a_at, a_stride, b, b_at, b_stride, beta, c, c_at, c_stride))


@compiled
def symmetric_multiply(
    m, n, alpha, a, a_at, a_stride, b, b_at, b_stride, beta, c, c_at, c_stride
):  # fmt: skip
    """C = alpha A B + beta C, with A symmetric of shape (m, m) and B of shape (m, n)."""
    _symm(
        (LEFT, LOWER, m, n, alpha, a, a_at, a_stride, b, b_at, b_stride, beta, c, c_at, c_stride)
    )


@compiled
def multiply_vector(m, n, turned, alpha, a, a_at, a_stride, x, x_at, y, y_at):
    """y = y + alpha A x, or y + alpha A' x if turned, with A of shape (m, n)."""
    how = YES if turned else NO
    _gemv((how, m, n, alpha, a, a_at, a_stride, x, x_at, 1, 1.0, y, y_at, 1))


@compiled
def gram_down(n, k, block, w, w_at, w_stride, z, z_at, z_stride, c, c_at, c_stride):
    """Take W' Z, known to be symmetric, from the lower triangle of C, a block of columns at once.

    W and Z have shape (k, n).
    """
    for j in range(0, n, block):
        multiply(
            n - j, min(block, n - j), k, True, False, -1.0, w, w_at + j * w_stride, w_stride,
            z, z_at + j * z_stride, z_stride, 1.0, c, c_at + j * c_stride + j, c_stride,
        )  # fmt: skip


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class _Limit:
    """One limit for all threads of the process, from the first that asks to the last that ends."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limit: Any = None

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.limit = _controller().limit(limits=1, user_api="blas")
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limit.restore_original_limits()


_limit = _Limit()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let every call of BLAS use one thread, as the threads are ours."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()
