"""A vector of eight float64 lanes for numba: one point of the Vecchia approximation per lane.

LLVM turns the eight lanes into one AVX-512 register, two AVX registers or four NEON registers.
Numba alone would have to
discover this by itself, and often does not. Arrays of lanes are plain float64 arrays of ``8 *
size`` numbers, indexed in vectors.
"""

# ruff: noqa: ANN001, ANN002, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import llvmlite.ir as ir
import math
import operator

from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model
from typing import Any

from ..compiled import compiled, instruction

__all__ = [
    "WIDTH",
    "exp",
    "gather",
    "load",
    "maximum",
    "positive",
    "splat",
    "sqrt",
    "store",
    "total",
]

WIDTH = 8
DOUBLE = ir.DoubleType()
LONG = ir.IntType(64)
VECTOR = ir.VectorType(DOUBLE, WIDTH)
LONGS = ir.VectorType(LONG, WIDTH)
FUSE = ("contract", "nsz", "arcp")


class Lanes(types.Type):
    """The numba type of eight float64 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes{WIDTH}")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """Lanes live in registers as an LLVM vector."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def arithmetic(symbol: Any, instruction: str) -> None:
    """Teach numba one operator between lanes."""

    @infer_global(symbol)
    class Typing(ConcreteTemplate):
        cases = [signature(lanes, lanes, lanes)]  # noqa: RUF012

    @lower_builtin(symbol, lanes, lanes)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=FUSE)


arithmetic(operator.add, "fadd")
arithmetic(operator.sub, "fsub")
arithmetic(operator.mul, "fmul")
arithmetic(operator.truediv, "fdiv")


def constant(value: float) -> ir.Constant:
    """Eight copies of a number known at compilation."""
    return ir.Constant(VECTOR, [value] * WIDTH)


def longs(value: int) -> ir.Constant:
    """Eight copies of an integer known at compilation."""
    return ir.Constant(LONGS, [value] * WIDTH)


def address(context, builder, kind, array, index):
    """Pointer to the vector number ``index`` of a float64 array."""
    data = context.make_array(kind)(context, builder, array).data
    start = builder.mul(index, ir.Constant(index.type, WIDTH))
    return builder.bitcast(builder.gep(data, [start]), VECTOR.as_pointer())


def call(builder, name, result, *args):
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(result, [a.type for a in args])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args)


@instruction
def load(typingctx, array, index):
    """Read the vector number ``index`` of an array."""

    def generate(context, builder, sig, args):
        return builder.load(address(context, builder, sig.args[0], *args), align=8)

    return lanes(array, types.intp), generate


@instruction
def store(typingctx, array, index, value):
    """Write the vector number ``index`` of an array."""

    def generate(context, builder, sig, args):
        builder.store(args[2], address(context, builder, sig.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@instruction
def splat(typingctx, value):
    """Eight copies of a number."""

    def generate(context, builder, sig, args):
        first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), args[0], LONG(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), mask)

    return lanes(types.float64), generate


@instruction
def sqrt(typingctx, value):
    """Square root of each lane."""

    def generate(context, builder, sig, args):
        return call(builder, f"llvm.sqrt.v{WIDTH}f64", VECTOR, *args)

    return lanes(lanes), generate


@instruction
def maximum(typingctx, a, b):
    """Larger of two lanes; the second where the first is not a number."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return lanes(lanes, lanes), generate


@instruction
def positive(typingctx, test, value):
    """Lanes of ``value`` where ``test > 0``, else 0; 0 too where the test is not a number."""

    def generate(context, builder, sig, args):
        return builder.select(
            builder.fcmp_ordered(">", args[0], constant(0.0)), args[1], constant(0.0)
        )

    return lanes(lanes, lanes), generate


@instruction
def total(typingctx, value):
    """Sum of the lanes, in lane order."""

    def generate(context, builder, sig, args):
        result = builder.extract_element(args[0], LONG(0))
        for lane in range(1, WIDTH):
            result = builder.fadd(result, builder.extract_element(args[0], LONG(lane)))
        return result

    return types.float64(lanes), generate


@instruction
def floor(typingctx, value):
    """Largest whole number under each lane."""

    def generate(context, builder, sig, args):
        return call(builder, f"llvm.floor.v{WIDTH}f64", VECTOR, *args)

    return lanes(lanes), generate


@instruction
def gather(typingctx, array, index, shift):
    """Read ``array[4 * index + shift]`` for a whole-valued vector ``index``."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        where = builder.mul(builder.fptosi(args[1], LONGS), longs(4))
        result = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(WIDTH):
            item = builder.add(builder.extract_element(where, LONG(lane)), args[2])
            result = builder.insert_element(
                result, builder.load(builder.gep(data, [item])), LONG(lane)
            )
        return result

    return lanes(array, lanes, types.intp), generate


@instruction
def power_of_two(typingctx, value):
    """Two to a whole-valued vector between -1022 and 1023, by writing the exponent bits."""

    def generate(context, builder, sig, args):
        bits = builder.shl(builder.add(builder.fptosi(args[0], LONGS), longs(1023)), longs(52))
        return builder.bitcast(bits, VECTOR)

    return lanes(lanes), generate


C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12 = (1.0 / math.factorial(k) for k in range(2, 13))
LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693147180369123816490, 1.90821492927058770002e-10


@compiled
def exp(x):
    """Exponential of each lane, for arguments up to 700; arguments below -700 give 1e-304."""
    x = maximum(x, splat(-700.0))
    k = floor(x * splat(LOG2E) + splat(0.5))
    r = (x - k * splat(LN2_HIGH)) - k * splat(LN2_LOW)
    low = ((splat(C5) * r + splat(C4)) * r + splat(C3)) * r + splat(C2)
    mid = ((splat(C9) * r + splat(C8)) * r + splat(C7)) * r + splat(C6)
    top = (splat(C12) * r + splat(C11)) * r + splat(C10)
    r2 = r * r
    r4 = r2 * r2
    return (((top * r4 + mid) * r4 + low) * r2 + r + splat(1.0)) * power_of_two(k)
