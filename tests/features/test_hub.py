"""``hf:NAME``: exports on a hub, here a server on this machine that speaks as the Hugging Face hub does."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from v3s.backbones import create_backbone
from v3s.commands.pretrain import PretrainConfig
from v3s.features.saved import Trained, describe_trained, plain_sampling, write_trained
from v3s.features.source import open_source
from v3s.files.weights import PUBLISHED, WEIGHTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("me/model", "me/damaged", "me/other")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export with code beside it, one with other weights, and a model of another library."""
    root = tmp_path_factory.mktemp("hub")
    for number, name in enumerate(NAMES):
        described = Trained(kind="converted", backbone="r3d", width=0.125, sampling=plain_sampling(8, 24), results={})
        write_trained(root / name, described, create_backbone("r3d", 0.125, seed=number), {})
        (root / name / WEIGHTS).rename(root / name / PUBLISHED)
        (root / name / "predict_video.py").write_text("raise SystemExit('code was run')")
    (root / "me/damaged" / PUBLISHED).write_bytes((root / "me/model" / PUBLISHED).read_bytes())
    (root / "me/other/config.json").write_text(json.dumps({"model_type": "vit"}))
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0].strip("/").removeprefix("api/models/")
            folder = next((folder for name, folder in folders.items() if path.startswith(name)), None)
            rest = path.split("/")[2:]
            content: str | bytes | None = None
            if folder and rest and rest[0] in ("revision", "tree"):
                files = [{"rfilename": each.name, "path": each.name, "type": "file", "size": each.stat().st_size,
                          "oid": "0" * 40} for each in folder.iterdir()]  # fmt: skip
                content = json.dumps(files if rest[0] == "tree" else {"id": "m", "sha": COMMIT, "siblings": files})
            elif folder and rest and rest[0] == "resolve" and (folder / rest[-1]).is_file():
                content = (folder / rest[-1]).read_bytes()
            body = content.encode() if isinstance(content, str) else content
            self.send_response(404 if body is None else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if with_body and body:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def loaded(hub: str, home: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """Load a backbone in a process of its own; it prints the fingerprint of its weights."""
    code = (
        "import sys, v3s; from v3s.files.weights import fingerprint\n"
        "try: print(fingerprint(v3s.load_backbone(sys.argv[1]).state_dict()))\n"
        "except ValueError as error: print(error); sys.exit(1)"
    )
    words = [sys.executable, "-c", code, name]
    own = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    own["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | own, check=False)


def test_an_export_is_loaded_by_name_and_by_hash_without_its_code(
    hub: tuple[str, list[str]], folders: dict[str, Path], tmp_path: Path
) -> None:
    address, asked = hub
    for name in ("hf:me/model", f"hf:me/model@{COMMIT}"):
        done = loaded(address, tmp_path, name)
        assert done.stdout.strip() == describe_trained(folders["me/model"]).fingerprint, done.stdout + done.stderr
    assert not [path for path in asked if path.endswith(".py")]
    assert not list(tmp_path.rglob("*.py"))
    later = loaded("http://127.0.0.1:9", tmp_path, f"hf:me/model@{COMMIT}")
    assert later.returncode == 0, later.stdout  # from the cache


def test_a_folder_of_an_export_is_a_network_of_v3s(folders: dict[str, Path]) -> None:
    source, folder = open_source(f"hf:{folders['me/model']}"), folders["me/model"]
    assert (source.origin, source.fingerprint) == ("converted", describe_trained(folder).fingerprint)
    with pytest.raises(ValueError, match=rf"give --backbone r3d --width 0\.125 --init hf:{folder}$"):
        PretrainConfig(data="x", out="y", backbone=f"hf:{folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:me/damaged", "damaged, or not the weights described"),
        ("hf:me/other", "is not a model that v3s export wrote"),
        ("hf:me/none", "cannot be downloaded"),
        ("hf:not a name", "is not a model that v3s export wrote"),
    ],
)
def test_what_is_no_export_is_one_line(name: str, message: str, hub: tuple[str, list[str]], tmp_path: Path) -> None:
    done = loaded(hub[0], tmp_path, name)
    assert done.returncode == 1
    assert message in done.stdout
    assert done.stdout.count("\n") == 1
