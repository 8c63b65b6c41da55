"""``@kernel``, ``@entry`` and ``declare``: the one place that chooses numba's compiler options.

Kinds of function, by who may call them:

    @kernel          called by kernels and entries of the same unit; becomes part of their machine code
    @hot_kernel      a kernel that is always inlined
    @cold_kernel     a kernel that never is
    @entry           called by Python, and by kernels of other units through a declaration; kept on disk
    declare(...)     what another unit's entry looks like from here (node/joints.py has them all)

An entry is compiled to a C function of (state pointer, int64, ...) and called through ctypes, without the
GIL. A call through a declaration goes through a slot, as a call into a shared library goes through its
linkage table: 1.8 ns. The slot starts at a resolver, so the other unit is compiled or loaded from disk at
the first call, never at import; and since the slot, not the callee, is what machine code knows, units may
call one another in a circle (allocation, reclaim and faults do).

A broken invariant unwinds to the entry that Python called, which raises ``KernelPanic``: ``bug_on`` and a
failed index check write their cause to ``state.panic`` first, and a call across units looks there after
it. Uncompiled (``NUMBA_DISABLE_JIT=1``), all of these are plain Python calls and ``KernelPanic`` is plainly
raised. ``PAGEFLEET_CHECKED=1`` is the checked build: every table index is checked.
``PAGEFLEET_WRAPPERS=1`` lets Python call every kernel, for tests of single kernels.
"""

import ctypes
import enum
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

import numba

if os.environ.get("PAGEFLEET_CHECKED") == "1":
    numba.config.BOUNDSCHECK = 1  # before anything is compiled; part of every unit's digest

import llvmlite.binding
from llvmlite import ir
from numba.core import compiler, sigutils, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler
from numba.core.imputils import lower_constant, lower_getattr_generic
from numba.core.registry import CPUDispatcher
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    builtin_registry,
    infer_getattr,
    signature,
)
from numba.extending import lower_builtin, models, register_model, typeof_impl

from shared.compile_cache import UnitCache
from shared.kernel_state import (
    BYTES_PER_ENTRY,
    PANIC_POSITION,
    WORD,
    KernelState,
    StateType,
    state_pointer,
    store_panic,
)
from shared.panic import NO_PANIC, KernelPanic

P = ParamSpec("P")
R = TypeVar("R")

COMPILED: Final = not numba.config.DISABLE_JIT
_WRAPPERS: Final = os.environ.get("PAGEFLEET_WRAPPERS") == "1"
# No reference counting: a kernel that allocates does not compile. numpy's error model: no exception for
# a division by zero, which costs a branch at every division.
_OPTIONS: Final = {"nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
LINK_FAILED: Final = -1


# --- kernels ------------------------------------------------------------------------------------------


class _KernelCompiler(_FunctionCompiler):
    """Compiles to LLVM's language only: machine code is made of the entry that a kernel becomes part of."""

    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.no_compile = True
        return flags


def _leave_to_the_entry(library: Any) -> None:
    """Let a kernel's library be linked into others as it is, neither optimized nor turned into machine code.

    The entry's is optimized as a whole. numba would do all this for each kernel too, for a third of all compile time,
    and fix early what to inline.
    """

    def finish_without_code() -> None:
        library._finalize_dynamic_globals()
        library._verify_declare_only_symbols()
        library._finalized = True

    library._finalize_final_module = finish_without_code
    library._optimize_final_module = lambda: None


class _Kernel(CPUDispatcher):
    """A numba function with one compiled copy: every argument but the state is an int64."""

    def __init__(self, func: Any, targetoptions: dict[str, Any], *, is_cold: bool = False) -> None:
        self._is_cold = is_cold
        super().__init__(func, locals={}, targetoptions=targetoptions)
        self._compiler = _KernelCompiler(func, self.targetdescr, targetoptions, {}, compiler.Compiler)
        self._key = object()  # by which numba's target context finds the compiled copy

    def compile(self, sig: Any) -> Any:
        args, return_type = sigutils.normalize_signature(sig)
        kinds = tuple(kind if isinstance(kind, StateType) else types.int64 for kind in args)
        with global_compiler_lock:
            if kinds not in self.overloads:
                compiled = self._compiler.compile(kinds, return_type)
                if self._is_cold:
                    function = compiled.library._final_module.get_function(compiled.fndesc.mangled_name)
                    for attribute in ("noinline", "cold"):
                        function.add_function_attribute(attribute)
                _leave_to_the_entry(compiled.library)
                self.targetctx.insert_user_function(self._key, compiled.fndesc, [compiled.library])
                self.overloads[kinds] = compiled
        return self._key

    def get_overload(self, sig: Any) -> Any:
        return self._key

    def __call__(self, *args: Any) -> Any:
        if not _WRAPPERS:
            raise TypeError(
                f"{self.py_func.__name__}: a compiled kernel is called by kernels and entries, not by Python"
            )
        wrapper = vars(self).get("wrapper")
        if wrapper is None:
            self.wrapper = wrapper = Entry(self.py_func)
        return wrapper(*args)


def kernel(func: Callable[P, R]) -> Callable[P, R]:
    """Make ``func(state, int, ...)`` part of the machine code of the entries that call it."""
    if not COMPILED:
        return func
    # Said, because a kernel that is first compiled under a hot one would inherit that it is always inlined.
    return cast("Callable[P, R]", _Kernel(func, {**_OPTIONS, "forceinline": False}))


def hot_kernel(func: Callable[P, R]) -> Callable[P, R]:
    """As ``kernel``, but never a call: for what a hot loop does at each turn, where a measurement asked for it.

    LLVM takes a body of ten loads for too long to inline, and then its result goes through memory.
    """
    if not COMPILED:
        return func
    return cast("Callable[P, R]", _Kernel(func, {**_OPTIONS, "forceinline": True}))


def cold_kernel(func: Callable[P, R]) -> Callable[P, R]:
    """As ``kernel``, but always a call: for what hot code hardly ever does, so that it keeps its registers."""
    if not COMPILED:
        return func
    return cast("Callable[P, R]", _Kernel(func, {**_OPTIONS, "forceinline": False}, is_cold=True))


# --- entries ------------------------------------------------------------------------------------------

ENTRIES: Final[list["Entry[Any, Any]"]] = []


class _EntryFunction(CFunc):
    """numba's C function, with all that it calls kept to itself."""

    def _compile_uncached(self) -> Any:
        compiled = super()._compile_uncached()
        _keep_kernels_inside(compiled.library, compiled.fndesc.llvm_cfunc_wrapper_name)
        return compiled


def _keep_kernels_inside(library: Any, name: str) -> None:
    """Tell LLVM, before it optimizes a library, that only function ``name`` is called from outside.

    So it sees all callers of a kernel: it inlines what has one, drops arguments that are constant or not read, and
    tests for no panic after a call that cannot bring one. As numba leaves them, another module might call them.
    """
    optimize = library._optimize_final_module

    def optimize_what_is_inside() -> None:
        for function in library._final_module.functions:
            if not function.is_declaration and function.name != name:
                function.linkage = "internal"
        optimize()

    library._optimize_final_module = optimize_what_is_inside


class Entry(Generic[P, R]):
    """A kernel that Python and other units can call, compiled at its first call or loaded from disk."""

    def __init__(self, func: Callable[P, R]) -> None:
        self.py_func = func
        self.__name__ = func.__name__
        self.__doc__ = func.__doc__
        self.__module__ = func.__module__
        self._c_function: Any = None
        self._compiled: Any = None
        parameters = list(inspect.signature(func).parameters)
        self.nr_ints = len(parameters) - 1
        self._returns = func.__annotations__.get("return") not in (None, "None")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run over a state; raise ``KernelPanic`` if the state was found broken."""
        if not COMPILED:
            return self.py_func(*args, **kwargs)
        if kwargs:
            raise TypeError(f"{self.__name__}: an entry takes positional arguments")
        state: Any = args[0]
        ints: Any = args[1:]
        result = self.c_function(type(state).NUMBA_TYPE)(
            state_pointer(state), *[int(value) for value in ints]
        )
        raise_panic(state)
        return cast("R", result)

    def compile(self, state_type: StateType) -> Any:
        """Compile for states of this type, or load from disk; return numba's C function object."""
        if self._compiled is None:
            returns = types.int64 if self._returns else types.void
            kinds = (state_type, *[types.int64] * self.nr_ints)
            compiled = _EntryFunction(self.py_func, (kinds, returns), {}, dict(_OPTIONS))
            compiled._cache = UnitCache(self.py_func)
            compiled.compile()
            self._compiled = compiled
        return self._compiled

    def c_function(self, state_type: StateType) -> Any:
        """Return the compiled entry as a ctypes function of (state pointer, int64, ...)."""
        if self._c_function is None:
            address = self.compile(state_type).address
            self._c_function = _prototype(self.nr_ints, self._returns)(address)
        return self._c_function


def _prototype(nr_ints: int, returns: bool) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int64 if returns else None, *[ctypes.c_int64] * (1 + nr_ints))


def entry(func: Callable[P, R]) -> Callable[P, R]:
    """Make ``func(state, int, ...)`` callable from Python, and from other units that declare it."""
    made = Entry(func)
    ENTRIES.append(made)
    return made


# --- calls across units -------------------------------------------------------------------------------

_link_errors: Final[list[BaseException]] = []


class Declaration(Generic[P, R]):
    """An entry of another unit, as its callers know it: a name, a number of integers, and a slot."""

    def __init__(self, stub: Callable[P, R], provider: str) -> None:
        self.provider = provider
        self.__name__ = stub.__name__
        self.__doc__ = stub.__doc__
        self.nr_ints = len(inspect.signature(stub).parameters) - 1
        self.symbol = f"pagefleet_slot_{stub.__name__}"
        self._resolver = _prototype(self.nr_ints, returns=True)(self._resolve)
        self._slot = ctypes.c_int64(ctypes.cast(self._resolver, ctypes.c_void_p).value or 0)
        if COMPILED:
            llvmlite.binding.add_symbol(self.symbol, ctypes.addressof(self._slot))
            _make_callable_from_kernels(self)

    def entry(self) -> "Entry[P, R]":
        """Return the entry that is declared here, importing its module."""
        found = getattr(importlib.import_module(self.provider), self.__name__)
        assert isinstance(found, Entry), f"{self.provider}.{self.__name__} is not an @entry"
        assert found.nr_ints == self.nr_ints, f"{self.provider}.{self.__name__}: not as declared"
        return found

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the entry: what an uncompiled kernel does, and Python."""
        return self.entry()(*args, **kwargs)

    def _resolve(self, state: int, *ints: int) -> int:
        """Stand in the slot at the first call from machine code: find the entry, then step aside."""
        try:
            found = self.entry()
            function = found.c_function(_state_type_in_use())
            self._slot.value = found.compile(_state_type_in_use()).address
            return int(function(state, *ints) or 0)
        except Exception as error:  # ctypes would print it and go on
            _link_errors.append(error)
            base = ctypes.c_int64.from_address(state + BYTES_PER_ENTRY * PANIC_POSITION).value
            ctypes.c_int64.from_address(base).value = LINK_FAILED
            return 0


def declare(provider: str) -> Callable[[Callable[P, R]], "Declaration[P, R]"]:
    """Declare the entry of the same name in module ``provider``; the decorated function is its signature."""
    return lambda stub: Declaration(stub, provider)


_state_types: Final[list[StateType]] = []


def use_state(state_class: type[KernelState]) -> type[KernelState]:
    """Say which state class the entries behind declarations are compiled for (a class decorator)."""
    _state_types[:] = [state_class.NUMBA_TYPE]
    return state_class


def _state_type_in_use() -> StateType:
    assert _state_types, "no state class is in use"
    return _state_types[-1]


def _make_callable_from_kernels(declaration: "Declaration[Any, Any]") -> None:
    class Template(AbstractTemplate):
        key = declaration

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != 1 + declaration.nr_ints or not isinstance(args[0], StateType):
                return None
            return signature(types.int64, args[0], *[types.int64] * declaration.nr_ints)

    builtin_registry.register_global(declaration, types.Function(Template))

    @lower_builtin(declaration, types.VarArg(types.Any))
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        slot = builder.module.globals.get(declaration.symbol)
        if slot is None:
            slot = ir.GlobalVariable(builder.module, WORD, declaration.symbol)
        function_type = ir.FunctionType(WORD, [WORD] * (1 + declaration.nr_ints))
        function = builder.inttoptr(builder.load(slot), function_type.as_pointer())
        result = builder.call(function, args)
        _return_if_panicked(context, builder, args[0])
        return result


def _return_if_panicked(context: Any, builder: Any, state: Any) -> None:
    base = builder.load(
        builder.inttoptr(
            builder.add(state, ir.Constant(WORD, BYTES_PER_ENTRY * PANIC_POSITION)), WORD.as_pointer()
        )
    )
    code = builder.load(builder.inttoptr(base, WORD.as_pointer()))
    with builder.if_then(builder.icmp_signed("!=", code, ir.Constant(WORD, NO_PANIC)), likely=False):
        context.call_conv.return_user_exc(builder, KernelPanic, (LINK_FAILED, "in an entry of another unit"))


# --- panics -------------------------------------------------------------------------------------------


def raise_panic(state: KernelState) -> None:
    """Raise the ``KernelPanic`` that a kernel left in ``state.panic``, if any."""
    panic = vars(state)["panic"]
    code = int(panic[0])
    if code == NO_PANIC:
        return
    if code == LINK_FAILED and _link_errors:
        raise KernelPanic(code, "an entry of another unit could not be compiled") from _link_errors.pop()
    names = list(state.LAYOUT)
    where = f"table {names[int(panic[1])]}" if 0 <= int(panic[1]) < len(names) else f"cause {int(panic[1])}"
    raise KernelPanic(code, f"{where}, index or value {int(panic[2])}")


def bug_on(state: KernelState, condition: object, code: int, value: int) -> None:
    """End the run with ``KernelPanic(code)`` if ``condition`` holds: a broken invariant, as BUG_ON of Linux.

    ``value`` says which object was found broken. The first cause stays.
    """
    if condition:
        panic = vars(state)["panic"]
        if int(panic[0]) == NO_PANIC:
            panic[0], panic[1], panic[2] = code, LINK_FAILED, value
        raise KernelPanic(code, f"value {value}")


if COMPILED:

    class _BugOn(AbstractTemplate):
        key = bug_on

        def generic(self, args: Any, kws: Any) -> Any:
            if kws or len(args) != len(inspect.signature(bug_on).parameters):
                return None
            return signature(types.none, args[0], types.boolean, types.int64, types.int64)

    builtin_registry.register_global(bug_on, types.Function(_BugOn))

    @lower_builtin(bug_on, StateType, types.boolean, types.int64, types.int64)
    def _lower_bug_on(context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        state, condition, code, value = args
        with builder.if_then(
            builder.trunc(condition, ir.IntType(1)) if condition.type.width > 1 else condition, likely=False
        ):
            store_panic(builder, state, PANIC_POSITION, [code, ir.Constant(WORD, LINK_FAILED), value])
            context.call_conv.return_user_exc(builder, KernelPanic, (LINK_FAILED, "bug_on"))
        return context.get_dummy_value()


def _quiet_panics(previous: Callable[[Any], None]) -> Callable[[Any], None]:
    """Drop the traceback that numba's C wrapper prints of an exception: the entry raises it from the state."""

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KernelPanic):
            previous(unraisable)

    return hook


sys.unraisablehook = _quiet_panics(sys.unraisablehook)


# --- enums are integers -------------------------------------------------------------------------------
# numba gives every IntEnum member a type of its own, so that a kernel called with a member and with an
# int is compiled twice, and a variable that holds both does not type at all.


class _EnumConstants(types.Type):
    def __init__(self, enum_class: type[enum.IntEnum]) -> None:
        self.enum_class = enum_class
        super().__init__(f"Enum({enum_class.__module__}.{enum_class.__qualname__})")


register_model(_EnumConstants)(models.OpaqueModel)
_type_of_other_enum = typeof_impl.dispatch(enum.EnumMeta)


@typeof_impl.register(enum.EnumMeta)
def _typeof_enum(value: Any, context: Any) -> Any:
    return _EnumConstants(value) if issubclass(value, enum.IntEnum) else _type_of_other_enum(value, context)


@typeof_impl.register(enum.IntEnum)
def _typeof_member(_value: Any, _context: Any) -> types.Type:
    return types.int64


@infer_getattr
class _EnumAttribute(AttributeTemplate):
    key = _EnumConstants

    def generic_resolve(self, kind: _EnumConstants, name: str) -> types.Type | None:
        return types.int64 if name in kind.enum_class.__members__ else None


@lower_getattr_generic(_EnumConstants)
def _lower_member(_context: Any, _builder: Any, kind: _EnumConstants, _value: Any, name: str) -> Any:
    return ir.Constant(WORD, int(kind.enum_class[name]))


@lower_constant(_EnumConstants)
def _lower_enum(context: Any, _builder: Any, _kind: _EnumConstants, _value: Any) -> Any:
    return context.get_dummy_value()
