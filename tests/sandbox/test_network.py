"""A network that cannot start says why and leaves nothing behind; a folder has one gateway at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions

pytestmark = pytest.mark.process


def options(folder: Path, front: str = "native", listen: str = "127.0.0.1:0") -> NetworkOptions:
    return NetworkOptions(data=folder, seed=5, listen=listen, front=front)


@pytest.mark.parametrize("front", ["native", "aio"])
def test_a_port_in_use_is_refused_and_a_folder_has_one_gateway(tmp_path: Path, front: str) -> None:
    with Network.start(options(tmp_path / "first", front)) as first:
        before = {thread.name for thread in threading.enumerate()}
        with pytest.raises(NetworkError, match="cannot be listened on"):
            Network.start(options(tmp_path / "second", front, first.target))
        with pytest.raises(NetworkError, match="another gateway runs on"):
            Network.start(options(tmp_path / "first", front))
        assert {thread.name for thread in threading.enumerate()} <= before
    # What was refused may start now, and what was used may be used again.
    Network.start(options(tmp_path / "second", front)).close()
    Network.start(options(tmp_path / "first", front)).close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "nonsense", "unix:"])
def test_an_address_that_may_not_be_used_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(NetworkError):
        Network.start(options(tmp_path, listen=listen))


def test_an_empty_network_starts_without_what_only_faces_or_a_server_need(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sandbox.network import Network\n"
        "from sandbox.options import NetworkOptions\n"
        "with Network.start(NetworkOptions(data=Path(sys.argv[1]), listen='127.0.0.1:0')) as network:\n"
        "    assert network.faces.status().templates == 0\n"
        "print(*sorted({'numba', 'onnxruntime', 'psycopg'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
