"""``KernelState``: tables of records that a compiled kernel sees as one pointer.

A subclass names its tables; an instance holds one array for each, at addresses that never change:

    class State(KernelState):
        page: Records = table(PAGE)
        vm_event: Counters = table(np.int64)

    state ---> entries  [page | vm_event | ...]        base address and length of each table
                          |
                          +---> PAGE 0, PAGE 1, ...    the records themselves

Compiled, ``state.page[pfn].refcount`` is a load of the base address, which LLVM may keep, and a load of
the field. Nothing else is passed, counted or copied: a NamedTuple of the same arrays reads the same, but
numba then hands seven words an array to every callee (8 to 30 times slower).

Every integer that a kernel reads is an ``int64``, whatever the width of the field; a store truncates.
So a kernel has one compiled copy, not one for each mixture of argument widths. Uncompiled, reading a
record gives a Python int, and a store that does not fit raises.
"""

import mmap
import operator
from collections.abc import Iterator
from typing import Any, ClassVar, Final, overload

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import lower_builtin, models, register_model

from shared.panic import INDEX_OUTSIDE_TABLE, KernelPanic

WORD: Final = ir.IntType(64)
BYTES_PER_ENTRY: Final = 16  # address, length
_MMAP_FROM_BYTES: Final = 1 << 16
_MAP_NORESERVE: Final = 0x4000  # Linux; the mmap module does not name it before Python 3.13


class Record:
    """One record of a table, read and written by field name: Python's view of ``state.page[pfn]``."""

    __slots__ = ("_fields", "_index")
    _fields: dict[str, Any]
    _index: int

    def __init__(self, fields: dict[str, Any], index: int) -> None:
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_index", index)

    def __getattr__(self, name: str) -> int:
        try:
            return int(self._fields[name][self._index])
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: int) -> None:
        field = self._fields.get(name)
        if field is None:
            raise AttributeError(name)
        field[self._index] = int(value)


class Records(np.ndarray[Any, Any]):
    """A table of records. An int index gives a ``Record``; a field name or a slice gives numpy arrays."""

    _fields: dict[str, Any]

    def __array_finalize__(self, parent: Any) -> None:
        self._fields = {}

    @overload  # type: ignore[override]  # narrower on purpose: what a kernel reads is a Record, an int
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if type(index) is str or not isinstance(index, int | np.integer):
            return np.asarray(self)[index]
        position = int(index)
        if not 0 <= position < len(self):
            raise KernelPanic(INDEX_OUTSIDE_TABLE, f"index {position} outside a table of {len(self)} records")
        if not self._fields:
            plain = np.asarray(self)
            self._fields = {name: memoryview(plain[name].data) for name in plain.dtype.names or ()}
        return Record(self._fields, position)


class Counters(np.ndarray[Any, Any]):
    """A table of integers, indexed by an enum or a number."""

    @overload  # type: ignore[override]  # as above
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            position = int(index)
            if not 0 <= position < len(self):
                raise KernelPanic(
                    INDEX_OUTSIDE_TABLE, f"index {position} outside a table of {len(self)} integers"
                )
            return int(np.asarray(self)[position])
        return np.asarray(self)[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, int | np.integer) and not 0 <= int(index) < len(self):
            raise KernelPanic(
                INDEX_OUTSIDE_TABLE, f"index {int(index)} outside a table of {len(self)} integers"
            )
        super().__setitem__(index, value)


class TableSpec:
    """What a class statement says of one table: its element type and how much of it is in use."""

    def __init__(self, dtype: np.dtype[Any], used: str) -> None:
        self.dtype = dtype
        self.used = used


def table(dtype: Any, used: str = "all") -> Any:
    """Declare a table of a KernelState.

    ``used`` names the rule that a snapshot follows: "all" records, or the name of the pool whose
    high-water mark bounds the table, or another rule that ``node.checkpoint`` knows.
    """
    return TableSpec(np.dtype(dtype), used)


def reserve(length: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return ``length`` zeroed elements whose memory is committed only where it is touched.

    Large tables are mapped without swap reservation, so the sum of all upper bounds may pass the
    machine's memory.
    """
    nr_bytes = length * dtype.itemsize
    if nr_bytes < _MMAP_FROM_BYTES:
        return np.zeros(length, dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, nr_bytes, flags=flags), dtype, length)


class KernelState:
    """Base class of a state. Subclasses declare tables; instances are built with their lengths."""

    LAYOUT: ClassVar[dict[str, TableSpec]] = {}
    NUMBA_TYPE: ClassVar["StateType"]

    def __init_subclass__(cls) -> None:
        layout = {name: spec for name, spec in vars(cls).items() if isinstance(spec, TableSpec)}
        for name in layout:
            delattr(cls, name)
        cls.LAYOUT = dict(cls.LAYOUT) | layout
        cls.NUMBA_TYPE = StateType(tuple((name, spec.dtype) for name, spec in cls.LAYOUT.items()))

    def __init__(self, **lengths: int) -> None:
        if lengths.keys() != self.LAYOUT.keys():
            wrong = sorted(lengths.keys() ^ self.LAYOUT.keys())
            raise ValueError(f"{type(self).__name__}: table lengths missing or unknown: {', '.join(wrong)}")
        arrays = {}
        for name, spec in self.LAYOUT.items():
            view = Records if spec.dtype.names else Counters
            arrays[name] = reserve(lengths[name], spec.dtype).view(view)
        vars(self).update(arrays)
        entries = np.array([(a.ctypes.data, len(a)) for a in arrays.values()], np.int64)
        vars(self).update(_entries=entries, address=int(entries.ctypes.data))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: the tables of a built state never move")

    def tables(self) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield each table as a plain array, in the order of the class statement."""
        for name in self.LAYOUT:
            yield name, np.asarray(vars(self)[name])


class StateType(types.Type):
    """numba type of a KernelState: the names and element types of its tables, in order."""

    def __init__(self, fields: tuple[tuple[str, np.dtype[Any]], ...]) -> None:
        self.fields = fields
        self.position = {name: i for i, (name, _) in enumerate(fields)}
        described = ", ".join(f"{name}: {_describe(dtype)}" for name, dtype in fields)
        super().__init__(f"State({described})")

    @property
    def mangling_args(self) -> tuple[str, tuple[()]]:
        """Keep symbol names short: the whole layout would be part of every one."""
        return "State", ()


def _describe(dtype: np.dtype[Any]) -> str:
    if dtype.fields is None:
        return str(dtype)
    inner = ",".join(f"{name}@{offset}:{kind}" for name, (kind, offset, *_) in dtype.fields.items())
    return f"{{{inner};{dtype.itemsize}}}"


class TableType(types.Type):
    """numba type of ``state.page``: where its entry is, and what it points to."""

    def __init__(self, name: str, position: int, dtype: np.dtype[Any]) -> None:
        self.table_name = name
        self.position = position
        self.dtype = dtype
        super().__init__(f"Table({name}@{position}: {_describe(dtype)})")


class RecordType(types.Type):
    """numba type of ``state.page[pfn]``: the address of a record."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        super().__init__(f"Record({_describe(dtype)})")


@register_model(StateType)
@register_model(TableType)
@register_model(RecordType)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, WORD)


# --- state.page ---------------------------------------------------------------------------------------


@infer_getattr
class _StateAttribute(AttributeTemplate):
    key = StateType

    def generic_resolve(self, kind: StateType, name: str) -> TableType | None:
        position = kind.position.get(name)
        return None if position is None else TableType(name, position, kind.fields[position][1])


@lower_getattr_generic(StateType)
def _lower_table(_context: Any, builder: Any, kind: StateType, state: Any, name: str) -> Any:
    return builder.add(state, ir.Constant(WORD, BYTES_PER_ENTRY * kind.position[name]))


# --- state.page[pfn] ----------------------------------------------------------------------------------


def _load_entry_word(builder: Any, address: Any) -> Any:
    word = builder.load(builder.inttoptr(address, WORD.as_pointer()))
    # The tables of a state never move or grow, so LLVM may keep what it has read.
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


def _length(builder: Any, entry: Any) -> Any:
    return _load_entry_word(builder, builder.add(entry, ir.Constant(WORD, BYTES_PER_ENTRY // 2)))


def store_panic(builder: Any, state: Any, panic_position: int, words: list[Any]) -> None:
    """Write (code, table, index) over the start of the state's ``panic`` table, first cause wins."""
    entry = builder.add(state, ir.Constant(WORD, BYTES_PER_ENTRY * panic_position))
    base = _load_entry_word(builder, entry)
    code = builder.inttoptr(base, WORD.as_pointer())
    with builder.if_then(builder.icmp_signed("==", builder.load(code), ir.Constant(WORD, 0))):
        for i, word in enumerate(words):
            builder.store(word, builder.gep(code, [ir.Constant(WORD, i)]))


def _check_index(context: Any, builder: Any, table_type: TableType, entry: Any, index: Any) -> None:
    outside = builder.icmp_unsigned(">=", index, _length(builder, entry))
    with builder.if_then(outside, likely=False):
        state = builder.sub(entry, ir.Constant(WORD, BYTES_PER_ENTRY * table_type.position))
        words = [ir.Constant(WORD, INDEX_OUTSIDE_TABLE), ir.Constant(WORD, table_type.position), index]
        store_panic(builder, state, PANIC_POSITION, words)
        context.call_conv.return_user_exc(builder, KernelPanic, (INDEX_OUTSIDE_TABLE, table_type.table_name))


def _element(context: Any, builder: Any, table_type: TableType, entry: Any, index: Any) -> Any:
    """Return the address of element ``index``, checked if this is the checked build."""
    if numba.config.BOUNDSCHECK:
        _check_index(context, builder, table_type, entry, index)
    size = ir.Constant(WORD, table_type.dtype.itemsize)
    return builder.add(_load_entry_word(builder, entry), builder.mul(index, size))


def _say_what(builder: Any, access: Any, what: str) -> None:
    """Tell LLVM which field a load or store is of: no two fields overlap, so a store to one spares the others."""
    module = builder.module
    root = module.add_metadata(["pagefleet"])
    field = module.add_metadata([what, root, ir.Constant(WORD, 0)])
    access.set_metadata("tbaa", module.add_metadata([field, field, ir.Constant(WORD, 0)]))


def _load_int(builder: Any, address: Any, dtype: np.dtype[Any], what: str) -> Any:
    value = builder.load(builder.inttoptr(address, ir.IntType(8 * dtype.itemsize).as_pointer()))
    value.align = dtype.itemsize
    _say_what(builder, value, what)
    return value if dtype.itemsize == WORD.width // 8 else builder.sext(value, WORD)


def _store_int(builder: Any, address: Any, dtype: np.dtype[Any], value: Any, what: str) -> None:
    kind = ir.IntType(8 * dtype.itemsize)
    narrow = value if kind.width == WORD.width else builder.trunc(value, kind)
    store = builder.store(narrow, builder.inttoptr(address, kind.as_pointer()))
    store.align = dtype.itemsize
    _say_what(builder, store, what)


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, _kws: Any) -> Any:
        target, index = args
        if isinstance(target, TableType) and isinstance(index, types.Integer | types.Boolean):
            element = RecordType(target.dtype) if target.dtype.fields else types.int64
            return signature(element, target, types.int64)
        return None


@lower_builtin(operator.getitem, TableType, types.int64)
def _lower_getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    table_type = sig.args[0]
    address = _element(context, builder, table_type, *args)
    return (
        address
        if table_type.dtype.fields
        else _load_int(builder, address, table_type.dtype, table_type.table_name)
    )


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, _kws: Any) -> Any:
        target = args[0]
        if isinstance(target, TableType) and not target.dtype.fields:
            return signature(types.none, target, types.int64, types.int64)
        return None


@lower_builtin(operator.setitem, TableType, types.int64, types.int64)
def _lower_setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _element(context, builder, sig.args[0], args[0], args[1])
    _store_int(builder, address, sig.args[0].dtype, args[2], sig.args[0].table_name)
    return context.get_dummy_value()


@infer_global(len)
class _Len(AbstractTemplate):
    def generic(self, args: Any, _kws: Any) -> Any:
        return signature(types.int64, *args) if isinstance(args[0], TableType) else None


@lower_builtin(len, TableType)
def _lower_len(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
    return _length(builder, args[0])


# --- prefetch -----------------------------------------------------------------------------------------

_READ: Final = 0
_KEEP_IN_ALL_CACHES: Final = 3
_DATA: Final = 1


def prefetch(_table: Any, _index: int) -> None:
    """Ask the processor to fetch ``_table[_index]``, which may be read soon; any index is allowed, NIL too."""


@infer_global(prefetch)
class _Prefetch(AbstractTemplate):
    def generic(self, args: Any, _kws: Any) -> Any:
        return signature(types.none, args[0], types.int64) if isinstance(args[0], TableType) else None


@lower_builtin(prefetch, TableType, types.int64)
def _lower_prefetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    size = ir.Constant(WORD, sig.args[0].dtype.itemsize)
    address = builder.add(_load_entry_word(builder, args[0]), builder.mul(args[1], size))
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(
        function, [pointer, *(ir.Constant(number, value) for value in (_READ, _KEEP_IN_ALL_CACHES, _DATA))]
    )
    return context.get_dummy_value()


# --- page.refcount ------------------------------------------------------------------------------------


@infer_getattr
class _RecordAttribute(AttributeTemplate):
    key = RecordType

    def generic_resolve(self, kind: RecordType, name: str) -> types.Type | None:
        return types.int64 if name in (kind.dtype.fields or ()) else None


def _field_name(kind: RecordType, name: str) -> str:
    return f"{name} of {','.join(kind.dtype.names or ())}"


def _field(builder: Any, kind: RecordType, record: Any, name: str) -> tuple[Any, np.dtype[Any]]:
    assert kind.dtype.fields is not None
    dtype, offset = kind.dtype.fields[name][:2]
    return builder.add(record, ir.Constant(WORD, offset)), dtype


@lower_getattr_generic(RecordType)
def _lower_field(_context: Any, builder: Any, kind: RecordType, record: Any, name: str) -> Any:
    return _load_int(builder, *_field(builder, kind, record, name), _field_name(kind, name))


@lower_setattr_generic(RecordType)
def _lower_field_store(_context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    record, value = args
    _store_int(builder, *_field(builder, sig.args[0], record, name), value, _field_name(sig.args[0], name))


# Every state begins with this table, so that code that knows no layout finds it.
PANIC_POSITION: Final = 0


def state_pointer(state: "KernelState") -> int:
    """Return the word that compiled code takes for this state."""
    return int(vars(state)["address"])


__all__ = [
    "Counters",
    "KernelState",
    "Record",
    "Records",
    "StateType",
    "reserve",
    "state_pointer",
    "table",
]
