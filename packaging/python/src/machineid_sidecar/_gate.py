"""The gate: one question before each step."""

from __future__ import annotations

import functools
import inspect
import math
import os
from typing import Any, Callable, Generator, NoReturn, TypeVar, overload

from ._answer import Answer, NotAllowed
from ._ask import aask, ask, question, socket_path

Function = TypeVar("Function", bound=Callable[..., Any])


class Gate:
    """Asks with these settings.

    device: the device to ask about [default: the calling agent's own, else the host's]
    max_age: accept an answer up to this many seconds old, if the daemon's configuration allows it
    timeout: seconds after which a daemon that does not answer counts as one that could not find out
    socket: the daemon's socket [default: socket_path(), looked up at each question]
    exits: a no ends the program (SystemExit with 77 or 75, one line on stderr) instead of raising Denied or Undecided: for frameworks
        that turn an exception into a message for the model

    `with gate:` and `async with gate:` ask on entering.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        max_age: float | None = None,
        timeout: float = 10.0,
        socket: str | os.PathLike[str] | None = None,
        exits: bool = False,
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError("timeout is a number of seconds above 0")
        self._request = question(device, max_age)
        self._timeout = timeout
        self._socket = None if socket is None else os.fspath(socket)
        self._exits = exits

    def check(self) -> Answer:
        """Returns on a yes; otherwise raises Denied or Undecided."""
        try:
            return ask(self._socket or socket_path(), self._request, self._timeout)
        except NotAllowed as no:
            self._refuse(no)

    async def acheck(self) -> Answer:
        """The same on an asyncio event loop, without blocking it."""
        try:
            return await aask(self._socket or socket_path(), self._request, self._timeout)
        except NotAllowed as no:
            self._refuse(no)

    def gated(self, function: Function) -> Function:
        """Asks before each call of `function`, which may be `async def`. A generator function asks when its first value is taken."""
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is an asynchronous generator: call acheck() in it, before each step")
        wrapper: Callable[..., Any]
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                await self.acheck()
                return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
                self.check()
                return (yield from function(*args, **kwargs))

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                self.check()
                return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    def __enter__(self) -> Answer:
        return self.check()

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Answer:
        return await self.acheck()

    async def __aexit__(self, *_: object) -> None:
        pass

    def _refuse(self, no: NotAllowed) -> NoReturn:
        if self._exits:
            no.exit()
        raise no


def check(
    *,
    device: str | None = None,
    max_age: float | None = None,
    timeout: float = 10.0,
    socket: str | os.PathLike[str] | None = None,
) -> Answer:
    """Returns when the answer is yes; otherwise raises Denied or Undecided. The settings are those of Gate."""
    return Gate(device=device, max_age=max_age, timeout=timeout, socket=socket).check()


async def acheck(
    *,
    device: str | None = None,
    max_age: float | None = None,
    timeout: float = 10.0,
    socket: str | os.PathLike[str] | None = None,
) -> Answer:
    """`check` on an asyncio event loop."""
    return await Gate(device=device, max_age=max_age, timeout=timeout, socket=socket).acheck()


@overload
def gated(function: Function, /) -> Function: ...


@overload
def gated(
    *,
    device: str | None = None,
    max_age: float | None = None,
    timeout: float = 10.0,
    socket: str | os.PathLike[str] | None = None,
    exits: bool = False,
) -> Callable[[Function], Function]: ...


def gated(
    function: Callable[..., Any] | None = None,
    /,
    *,
    device: str | None = None,
    max_age: float | None = None,
    timeout: float = 10.0,
    socket: str | os.PathLike[str] | None = None,
    exits: bool = False,
) -> Any:
    """Decorates a function, which may be `async def`: each call asks first. `@gated` or `@gated(max_age=2)`."""
    gate = Gate(device=device, max_age=max_age, timeout=timeout, socket=socket, exits=exits)
    return gate.gated if function is None else gate.gated(function)
