"""The proxy that the network tests trust: what it says of a connection is what becomes of it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from fakes.fault_proxy import Fault, FaultProxy
from fakes.polling import until

PATIENCE_SECONDS = 5.0
Dial = Callable[[], socket.socket]


class Echo:
    """A server that answers with what it hears, and keeps what each connection brought and how it ended."""

    def __init__(self) -> None:
        self.heard: list[bytearray] = []
        # Connections by their number: "FIN" or "RST".
        self.ends: dict[int, str] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.heard.append(bytearray())
                thread = threading.Thread(target=self._serve, args=(connection, len(self.heard) - 1), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    self.heard[number] += data
                    connection.sendall(data)
            except OSError:
                self.ends[number] = "RST"
            else:
                self.ends[number] = "FIN"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.address) as made:
        yield made


@pytest.fixture
def dial(proxy: FaultProxy) -> Iterator[Dial]:
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        host, _, port = proxy.address.rpartition(":")
        made.append(socket.create_connection((host, int(port)), PATIENCE_SECONDS))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def ask(client: socket.socket, data: bytes) -> bytes:
    """Sends so many bytes, and reads as many back."""
    client.sendall(data)
    return read(client, len(data))


def read(client: socket.socket, size: int) -> bytes:
    """So many bytes, or as many as there are before the end."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def silent(client: socket.socket) -> bool:
    """Nothing comes for a moment, not even the end."""
    client.settimeout(0.2)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    return False


def test_without_a_fault_bytes_and_ends_arrive(echo: Echo, proxy: FaultProxy, dial: Dial):
    client = dial()
    assert ask(client, b"x" * 300_000) == b"x" * 300_000
    assert proxy.carried == [(300_000, 300_000)]
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b"", "the server's end arrives, too"
    until(lambda: echo.ends == {0: "FIN"})


def test_a_delay_holds_bytes_up_both_ways(proxy: FaultProxy, dial: Dial):
    client = dial()
    ask(client, b"before")
    proxy.become(Fault(delay=0.15))
    begin = time.monotonic()
    assert ask(client, b"hello") == b"hello"
    assert time.monotonic() - begin >= 0.3


def test_a_slow_line_carries_so_many_bytes_a_second(proxy: FaultProxy, dial: Dial):
    proxy.become(Fault(bytes_per_second=10_000))
    begin = time.monotonic()
    assert ask(dial(), b"x" * 2_000) == b"x" * 2_000
    assert time.monotonic() - begin >= 0.2


def test_a_cut_ends_both_sides(echo: Echo, proxy: FaultProxy, dial: Dial):
    client = dial()
    ask(client, b"hello")
    proxy.cut()
    assert client.recv(1) == b""
    until(lambda: echo.ends == {0: "FIN"})
    assert ask(dial(), b"again") == b"again", "new connections are as good as ever"


def test_a_reset_breaks_both_sides(echo: Echo, proxy: FaultProxy, dial: Dial):
    client = dial()
    ask(client, b"hello")
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ends == {0: "RST"})


def test_a_black_hole_swallows_bytes_and_ends_and_stays_one(echo: Echo, proxy: FaultProxy, dial: Dial):
    client = dial()
    ask(client, b"hello")
    proxy.become(Fault(black_hole=True))
    client.sendall(b"anybody there?")
    assert silent(client)
    proxy.heal()
    client.sendall(b"and now?")
    assert silent(client)
    assert (bytes(echo.heard[0]), echo.ends) == (b"hello", {})
    client.close()
    assert ask(dial(), b"again") == b"again"
    assert echo.ends == {}, "nobody tells the server that its client is gone"


def test_a_fault_can_be_for_new_connections_only(proxy: FaultProxy, dial: Dial):
    old = dial()
    ask(old, b"before")
    proxy.become(Fault(black_hole=True), existing=False)
    new = dial()
    new.sendall(b"anybody there?")
    assert silent(new)
    assert ask(old, b"after") == b"after"


def test_what_is_duplicated_arrives_twice_and_is_answered_once(echo: Echo, proxy: FaultProxy, dial: Dial):
    proxy.become(Fault(duplicate=True))
    client = dial()
    assert ask(client, b"hello") == b"hello"
    assert ask(client, b"world") == b"world"
    until(lambda: [bytes(each) for each in echo.heard] == [b"helloworld"] * 2)
    assert silent(client)


def test_when_it_refuses_nobody_gets_in_and_who_is_in_stays(proxy: FaultProxy, dial: Dial):
    client = dial()
    ask(client, b"before")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial()
    assert ask(client, b"after") == b"after"
    proxy.heal()
    assert ask(dial(), b"again") == b"again"


def test_it_heals_when_it_was_told_to(proxy: FaultProxy, dial: Dial):
    proxy.refuse()
    proxy.become(Fault(black_hole=True))
    proxy.heal(after=0.1)

    def answered() -> bool:
        with suppress(ConnectionRefusedError):
            return ask(dial(), b"hello") == b"hello"
        return False

    assert not answered()
    until(answered)


@pytest.mark.parametrize("limit", [0, 1, 7, 4999])
def test_a_connection_is_cut_after_exactly_so_many_bytes_up(echo: Echo, proxy: FaultProxy, dial: Dial, limit: int):
    proxy.become(Fault(cut_after_up=limit))
    client = dial()
    with suppress(ConnectionError):
        client.sendall(b"x" * 5000)
    with suppress(ConnectionError):
        read(client, 5000)
    until(lambda: echo.ends)
    assert len(echo.heard[0]) == limit
    assert proxy.carried[0][0] == limit


@pytest.mark.parametrize("limit", [0, 1, 7, 4999])
def test_a_connection_is_cut_after_exactly_so_many_bytes_down(proxy: FaultProxy, dial: Dial, limit: int):
    proxy.become(Fault(cut_after_down=limit))
    assert len(ask(dial(), b"x" * 5000)) == limit


@pytest.mark.parametrize("limit", [0, 10])
def test_it_can_be_cut_with_a_reset(echo: Echo, proxy: FaultProxy, dial: Dial, limit: int):
    proxy.become(Fault(cut_after_up=limit, reset=True))
    # As early as in connecting, or as late as in reading; after the last byte its answer may still come through.
    with suppress(ConnectionError):
        ask(dial(), b"x" * 10)
    until(lambda: echo.ends == {0: "RST"})


def test_without_a_server_a_connection_is_reset(echo: Echo, dial: Dial):
    echo.close()
    with pytest.raises(ConnectionResetError):
        dial().recv(1)
