"""The command: what it refuses before it listens, what it prints, how it ends."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_processes import start
from v3s.serve.marks import FOLDER, LOG
from v3s.serve.serve import ServeConfig, listen_on, name_for_others, serve


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_is_a_port(port: int) -> None:
    with pytest.raises(ValueError, match="it must be from 0 to 65535"):
        ServeConfig(vectors="vectors", port=port)


def test_a_port_that_is_in_use_is_named_after_a_folder_without_vectors(files: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port is {port}, which cannot be listened on at 127.0.0.1.*with --port"):
            serve(ServeConfig(vectors=str(files), port=port))
        with pytest.raises(ValueError, match="contains no vectors"):
            serve(ServeConfig(vectors=str(tmp_path), port=port))


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="not a name or address of a machine"):
        listen_on("no.such.host.invalid", 0)
    with pytest.raises(ValueError, match="which is not an address of this machine; give one of its addresses"):
        listen_on("203.0.113.1", 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "0::0"])
def test_of_all_addresses_one_is_named_that_opens(host: str) -> None:
    """No other machine can open 0.0.0.0."""
    try:
        listening = listen_on(host, 0)
    except ValueError:
        assert ":" in host, "every machine has IPv4"
        pytest.skip("this machine has no IPv6")
    with listening:
        name = name_for_others(host, listening)
        assert name not in ("0.0.0.0", "0", "::", "0::0", "")
        with socket.create_connection((name, listening.getsockname()[1]), timeout=20):
            pass


def test_an_address_that_was_given_is_named_as_it_is() -> None:
    for host in ("127.0.0.1", "localhost"):
        with listen_on(host, 0) as listening:
            assert name_for_others(host, listening) == host


def test_without_a_route_the_machine_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen_on("0.0.0.0", 0) as listening:
        monkeypatch.setattr(socket.socket, "connect", _no_route)
        assert name_for_others("0.0.0.0", listening) == socket.gethostname()


def _no_route(asking: socket.socket, address: tuple[str, int]) -> None:
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


def test_a_folder_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no vectors"):
        serve(ServeConfig(vectors=str(tmp_path), port=0))


def test_it_prints_its_address_and_what_was_dropped_and_ends_with_ctrl_c(files: Path) -> None:
    (files / FOLDER).mkdir()
    (files / FOLDER / LOG).write_text("half a li")
    process = start(["serve", str(files), "--port", "0"], files.parent)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("http://127.0.0.1:"):
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")
    assert "its last line was half written (9 bytes) and is dropped" in lines[0]
    assert "8 spans" in lines[1]
    assert os.listdir(files / FOLDER) == [LOG] or sorted(os.listdir(files / FOLDER)) == ["labels.csv", LOG]


@pytest.mark.parametrize("is_closed", [False, True])
def test_half_a_request_says_nothing(files: Path, is_closed: bool) -> None:
    """The window waits for its answer while Ctrl-C comes, or is closed before it has sent all."""
    process = start(["serve", str(files), "--port", "0"], files.parent)
    assert process.stdout is not None
    host = next(line for line in process.stdout if line.startswith("http://"))[7:-2]
    name, _, port = host.rpartition(":")
    with socket.create_connection((name, int(port))) as slow:
        slow.sendall(
            f"POST /api/classes HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
            "Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{".encode()
        )
        for _ in range(2):
            with socket.create_connection((name, int(port))) as other:  # answered after the first one has begun
                other.sendall(f"GET /api/labels HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert other.recv(12) == b"HTTP/1.1 200"
            if is_closed:
                slow.close()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


def test_forged_labels_end_the_command_with_one_line(files: Path) -> None:
    (files / FOLDER).mkdir()
    (files / FOLDER / LOG).write_text('{"path": "left/a.avi"}\n')
    command = [sys.executable, "-m", "v3s", "serve", str(files), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "marks.jsonl, line 1: " in done.stderr
    assert done.stderr.count("\n") == 1
