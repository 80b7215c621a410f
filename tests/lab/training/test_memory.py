"""Reading the peak of memory."""

import gc

import pytest
import torch

from freezeout.lab.training import Trainer
from freezeout.lab.training.memory import MemoryMeter
from tests.lab.runs import train


def test_the_peak_is_the_most_that_was_noted_since_the_start():
    meter = MemoryMeter(torch.device("cpu"))
    meter.start()
    before = meter.peak()
    large = torch.ones(30_000_000)  # 120 MB
    meter.note()
    del large
    high = meter.peak()
    assert high - before > 100e6
    meter.start()
    assert meter.peak() < high - 80e6


def test_a_run_looks_when_every_gradient_is_there(tmp_path, monkeypatch):
    """After the backward pass a step holds the most that a system can be asked about."""
    held = []
    note, peak = MemoryMeter.note, MemoryMeter.peak

    def noted(meter):
        (trainer,) = (t for t in gc.get_objects() if type(t) is Trainer and t.meter is meter)
        held.append(all(p.grad is not None for p in trainer.model.parameters()))
        note(meter)

    def read(meter):
        monkeypatch.setattr(MemoryMeter, "note", note)  # one at the end of an epoch, without any
        try:
            return peak(meter)
        finally:
            monkeypatch.setattr(MemoryMeter, "note", noted)

    monkeypatch.setattr(MemoryMeter, "note", noted)
    monkeypatch.setattr(MemoryMeter, "peak", read)
    train(tmp_path / "run", t0=1.0)
    assert held == [True] * 12


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
