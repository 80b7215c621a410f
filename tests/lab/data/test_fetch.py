"""Fetching, from a server of our own on this machine: no test leaves it."""

import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from freezeout.errors import DataError
from freezeout.lab.data import load, official

FILES = official.FASHION_MNIST_FILES


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path.lstrip("/") in self.server.broken_off:
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.asked, made.broken_off = {}, [], set()
    address = f"http://127.0.0.1:{made.server_address[1]}"
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for name in official.ADDRESS:
        monkeypatch.setitem(official.ADDRESS, name, f"{address}/{name}")
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def fashion_server(server, tiny_fashion):
    server.files.update(tiny_fashion)
    return server


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_missing_files_are_fetched_once(fashion_server, tmp_path, capfd, caplog):
    root = tmp_path / "made" / "when needed"
    with caplog.at_level(logging.INFO, logger="freezeout"):
        first = load("fashion-mnist", data_dir=root)
    assert sorted(fashion_server.asked) == sorted(f"/{name}" for name in FILES)
    assert names_in(root) == sorted(FILES)
    assert first.train_labels.tolist() == [9, 0, 4]
    again = load("fashion-mnist", data_dir=root, download=False)
    assert torch.equal(again.train_images, first.train_images)
    assert len(fashion_server.asked) == 4
    assert capfd.readouterr() == ("", "")
    assert "fetching http://127.0.0.1" in caplog.text


def test_only_what_is_missing_is_fetched(fashion_server, tiny_fashion, tmp_path):
    (tmp_path / FILES[0]).write_bytes(tiny_fashion[FILES[0]])
    load("fashion-mnist", data_dir=tmp_path)
    assert f"/{FILES[0]}" not in fashion_server.asked
    assert len(fashion_server.asked) == 3


def test_archives_are_fetched_too(server, tiny_cifar, tmp_path):
    server.files.update(tiny_cifar)
    dataset = load("cifar100", data_dir=tmp_path)
    assert server.asked == ["/cifar-100-python.tar.gz"]
    assert dataset.train_labels.tolist() == [0, 9]
    assert names_in(tmp_path) == ["cifar-100-python.tar.gz"]


def test_the_cache_folder_is_used_when_none_is_given(fashion_server, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    load("fashion-mnist")
    assert names_in(tmp_path / "cache" / "freezeout") == sorted(FILES)
    load("fashion-mnist", download=False)


def damaged_download(server):
    server.files[FILES[1]] += b"!"


def broken_off_download(server):
    server.broken_off.add(FILES[1])


def absent_file(server):
    del server.files[FILES[1]]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (damaged_download, "what arrived is not the published file"),
        (broken_off_download, "the connection broke off|what arrived is not the published file"),
        (absent_file, "404"),
    ],
)
def test_trouble_on_the_way_leaves_nothing_behind(fashion_server, tmp_path, trouble, words):
    trouble(fashion_server)
    with pytest.raises(DataError, match=words) as caught:
        load("fashion-mnist", data_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{FILES[1]} was not found under {tmp_path}, and fetching it failed")
    assert message.count(official.ADDRESS[FILES[1]]) == 1
    assert "--data-dir" in message
    assert "\n" not in message
    assert len(message) < 330 + len(str(tmp_path))
    assert names_in(tmp_path) == [FILES[0]]


def test_no_network(tiny_fashion, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x"  # nobody listens
        monkeypatch.setitem(official.ADDRESS, FILES[0], address)
        with pytest.raises(
            DataError, match=r"fetching it failed: no connection \(\[Errno \d+\]"
        ) as caught:
            load("fashion-mnist", data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("cached", [False, True])
def test_folders_made_for_a_failed_fetch_are_removed(fashion_server, tmp_path, monkeypatch, cached):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "typo" / name)
    fashion_server.files.clear()
    with pytest.raises(DataError, match="404"):
        load("fashion-mnist", data_dir=None if cached else tmp_path / "typo" / "again")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_or_hold_something_stay(fashion_server, tmp_path):
    (tmp_path / "mine").mkdir()
    absent_file(fashion_server)
    with pytest.raises(DataError, match="404"):
        load("fashion-mnist", data_dir=tmp_path / "mine")
    assert names_in(tmp_path / "mine" / "fashion_mnist") == [FILES[0]]
    fashion_server.files.clear()
    with pytest.raises(DataError, match="404"):
        load("cifar10", data_dir=tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="404"):
        load("fashion-mnist", data_dir=tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_folder_that_cannot_be_made(fashion_server, tmp_path):
    (tmp_path / "fashion_mnist").touch()
    with pytest.raises(DataError, match=r"fetching it failed: .*File exists"):
        load("fashion-mnist", data_dir=tmp_path)
    assert fashion_server.asked == []


def test_pooch_keeps_its_log_level(fashion_server, tmp_path):
    import pooch

    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        load("fashion-mnist", data_dir=tmp_path)
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize("data_dir", [None, "given"])
def test_pooch_not_installed(tmp_path, monkeypatch, data_dir):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"pip install 'freezeout\[lab\]'"):
        load("fashion-mnist", data_dir=data_dir and tmp_path)
