"""Reading the peak of memory."""

import sys

import pytest
import torch

from freezeout.training import memory
from freezeout.training.memory import MemoryMeter
from runs import train

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")


@linux
def test_the_peak_is_that_since_the_start():
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    before = meter.peak()
    large = torch.ones(30_000_000)  # 120 MB
    del large
    high = meter.peak()
    assert high - before > 100e6
    meter.start()
    assert meter.peak() < high - 80e6


@linux
def test_where_the_peak_cannot_be_reset_it_is_that_of_the_whole_process(monkeypatch, tmp_path):
    meter = MemoryMeter(torch.device("cpu"))
    monkeypatch.setattr(memory, "_RESET", tmp_path / "none" / "clear_refs")
    meter.start()
    assert meter.peak() > 50e6


def test_where_nothing_tells_there_is_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert MemoryMeter(torch.device("cpu")).peak() is None
    (tmp_path / "status").write_text("Name: x\nVmHWM: many kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert MemoryMeter(torch.device("cpu")).peak() is None
    (tmp_path / "status").write_text("Name: x\nVmHWM:    17 kB\n")
    assert MemoryMeter(torch.device("cpu")).peak() == 17 * 1024


@linux
def test_every_epoch_has_its_peak_in_the_log(tmp_path):
    run = train(tmp_path / "run")
    peaks = [r["memory"] for r in run.read_log() if r["event"] == "epoch"]
    assert len(peaks) == 3
    assert all(peak > 50e6 for peak in peaks)


@pytest.mark.gpu
def test_on_a_gpu_the_peak_is_what_torch_handed_out():
    meter = MemoryMeter(torch.device("cuda"))
    meter.start()
    before = meter.peak()
    large = torch.ones(10_000_000, device="cuda")
    assert meter.peak() - before >= 40_000_000
    del large
    meter.start()
    assert meter.peak() <= before
