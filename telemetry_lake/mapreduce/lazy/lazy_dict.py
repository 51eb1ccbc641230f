"""A dict whose members are made when they are looked at, and that is a dict in every other way.

Most of a ping is histograms, and most scripts look at none of them, or at one. `LazyDict` stands where a
document has histograms: asked for one name it makes that one; asked for more than that, iterated, compared,
changed, copied or pickled it makes all of them and is filled like any dict.

What a script can notice: `type(x)` is not `dict` itself (`isinstance(x, dict)` is true). Pickled or copied
it becomes a plain dict. Code in C that looks into a dict's memory instead of asking it, as `orjson.dumps`
does, finds a `NotRead` there and refuses it; `dict(x)` first.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar, cast

_Result = TypeVar("_Result")


class Members(Protocol):
    """The source of the members, which gives the same answers every time."""

    def names(self) -> Iterable[str]:
        """Return all names, in order, at least one."""

    def has(self, name: object) -> bool:
        """Return whether there is a member of this name."""

    def make(self, name: str) -> Any:
        """Make the member of this name, which there has to be: a new object each time."""


class NotRead:
    """Stands in a `LazyDict` for a member that was not looked at yet."""

    def __repr__(self) -> str:
        return "<not read yet>"


_NOT_READ: Final = NotRead()


class LazyDict(dict[str, Any]):
    """A dict of `members`, each of which is made when it is needed."""

    __slots__ = ("_members", "_names_known")
    __hash__ = None

    def __init__(self, members: Members) -> None:
        # json.dumps takes a dict without anything in its memory for empty and asks no further.
        super().__init__({cast("str", _NOT_READ): _NOT_READ})
        self._members: Members | None = members
        self._names_known = False

    def __getitem__(self, name: str) -> Any:
        members = self._members
        if members is None:
            return super().__getitem__(name)
        member = super().get(name, _NOT_READ)
        if member is _NOT_READ:
            if not members.has(name):
                raise KeyError(name)
            member = members.make(name)
            super().__setitem__(name, member)
        return member

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 (this is that)

    def __contains__(self, name: object) -> bool:
        if self._members is None or self._names_known:
            return super().__contains__(name)
        hash(name)
        return self._members.has(name)

    def __bool__(self) -> bool:
        return self._members is not None or super().__len__() > 0

    def __len__(self) -> int:
        self._read_names()
        return super().__len__()

    def __iter__(self) -> Iterator[str]:
        self._read_names()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._read_names()
        return super().__reversed__()

    def keys(self) -> Any:
        """Return the keys, as `dict.keys` does."""
        self._read_names()
        return super().keys()

    def _read_names(self) -> None:
        if self._members is None or self._names_known:
            return
        read = dict(super().items())
        super().clear()
        super().update({name: read.get(name, _NOT_READ) for name in self._members.names()})
        self._names_known = True

    def _read_all(self) -> None:
        members = self._members
        if members is None:
            return
        self._read_names()
        for name, member in super().items():
            if member is _NOT_READ:
                super().__setitem__(name, members.make(name))
        self._members = None

    def copy(self) -> dict[str, Any]:
        """Return a plain dict, as `dict.copy` does."""
        self._read_all()
        return dict(super().items())

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    @classmethod
    def fromkeys(cls, names: Iterable[Any], value: Any = None) -> Any:
        """Return a plain dict, as `dict.fromkeys` does."""
        return dict.fromkeys(names, value)


def _reading_all(name: str) -> Callable[..., Any]:
    dict_method: Callable[..., Any] = getattr(dict, name)

    def method(self: LazyDict, *arguments: Any, **named: Any) -> Any:
        self._read_all()
        for argument in arguments:
            if isinstance(argument, LazyDict):
                argument._read_all()
        return dict_method(self, *arguments, **named)

    method.__name__ = name
    method.__doc__ = f"As `dict.{name}`, after all members are made."
    return method


for _name in (
    *("values", "items", "pop", "popitem", "clear", "update", "setdefault"),
    *("__eq__", "__ne__", "__repr__", "__setitem__", "__delitem__", "__or__", "__ror__", "__ior__"),
    "__sizeof__",
):
    setattr(LazyDict, _name, _reading_all(_name))
