"""What the processes of `ranks` do when they train one network together, for the tests."""

import copy
import os
import signal
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from freezeout.errors import FreezeOutError
from freezeout.lab.data import load
from freezeout.lab.training import Observer, RunFolder, resume, run, start
from freezeout.lab.training.processes import Processes, local_norms
from freezeout.lab.training.processes.synced_norm import synchronise
from freezeout.wrappers import reduced_elements
from tests.lab.runs import KillAt, KilledError, small


def uneven(**changes):
    """Fifteen steps in three epochs; the last batch of an epoch has 11 images, an odd number."""
    return small(**{"train_size": 75, "flip": True, **changes})


class OtherNorm(nn.BatchNorm2d):
    """A class that is not known to be an ordinary BatchNorm."""


class Net(nn.Module):
    """Dropout, a branch that is skipped at random, and parameters that nobody uses."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.other = OtherNorm(6)  # its buffers go their own way in each process
        self.branch = nn.Linear(6, 6)
        self.idle = nn.Linear(3, 3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.other(self.second(x))).mean((2, 3))
        if not self.training or torch.rand(()) < 0.5:
            x = x + self.branch(x)
        return self.head(self.drop(x))


def make_net(num_classes, in_channels):
    return Net(num_classes, in_channels)


def other_data():
    """Not the same in every process."""
    data = load("digits")
    images = data.train_images + dist.get_rank()
    return images, data.train_labels, data.test_images, data.test_labels


class Watch(Observer):
    """Keeps what it is told, and sends this process signals after a step."""

    def __init__(self, signal_at=None):
        self.signal_at, self.said = signal_at, []

    def message(self, text):
        self.said.append(text)

    def progress(self, progress):
        if progress.step == self.signal_at:
            for _ in range(2):  # as launchers repeat themselves; it must not end the saving
                os.kill(os.getpid(), signal.SIGTERM)


def job(rank, name, folder):
    """Carries one of `Jobs` out, with warnings as errors."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return getattr(Jobs(Path(folder), rank), name)()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class Jobs:
    """What is done in a process. Only rank 0 may write, so each is told another folder."""

    def __init__(self, folder, rank):
        self.folder = folder
        self.processes = Processes(rank, dist.get_world_size(), rank)

    def place(self, name):
        rank = self.processes.rank
        return RunFolder(self.folder / (name if rank == 0 else f"{name}-{rank}"))

    def run(self, name, settings, *observers):
        result = start(settings, self.place(name), observers, processes=self.processes)
        return result.trainer.step, result.interrupted

    def resumed(self, name, *observers):
        result = resume(self.place(name), {}, observers, processes=self.processes)
        return result.trainer.step, result.interrupted

    def killed(self, name, settings, step):
        try:
            self.run(name, settings, KillAt(step))
        except KilledError:
            return
        raise AssertionError("the run was not killed")

    def whole(self):
        return self.run("whole", uneven())

    def exchange(self):
        """A whole run again: gradient elements and messages, step by step."""
        counts, trainers, plain, steps = Counter(), [], dist.all_gather, []

        class Watched(run.Trainer):
            def __init__(self, *words):
                super().__init__(*words)
                trainers.append(self)

        def counted(*words, **more):
            counts["messages"] += 1
            return plain(*words, **more)

        class Look(Observer):
            def progress(self, progress):
                network = trainers[-1].network
                buffers = len(network.modules_buffers) if network.broadcast_buffers else 0
                steps.append((reduced_elements(network), counts["messages"], buffers))

            def epoch(self, record):
                counts.clear()

        real = run.Trainer
        run.Trainer, dist.all_gather = Watched, counted
        try:
            self.run("exchange", uneven(), Look())
        finally:
            run.Trainer, dist.all_gather = real, plain
        return steps

    def again(self):
        """Killed in the middle of an epoch and resumed from the one before, twice."""
        self.killed("again", uneven(), 7)
        try:
            self.resumed("again", KillAt(13))
        except KilledError:
            return self.resumed("again")
        raise AssertionError("the run was not killed")

    def each_step(self):
        """Saved at every step, so that it goes on in the middle of an epoch."""
        self.killed("each_step", uneven(checkpoint_minutes=1e-9), 8)
        return self.resumed("each_step")

    def signalled(self):
        """A signal to the last process alone."""
        last = self.processes.rank == self.processes.size - 1
        watch = Watch(6 if last else None)
        stopped = self.run("signalled", uneven(), watch)
        return stopped, watch.said, self.resumed("signalled")

    def from_another(self):
        watch = Watch()
        return self.resumed("from_another", watch), watch.said

    def for_another(self):
        return self.killed("for_another", uneven(), 7)

    def own(self):
        """A custom network; killed and resumed."""
        settings = replace(uneven(t0=0.5), model="tests.lab.training.several_jobs:make_net")
        watch = Watch()
        self.run("own", settings, watch)
        seed = torch.initial_seed()
        self.killed("own_again", settings, 8)
        self.resumed("own_again")
        return watch.said, seed

    def control(self):
        return self.run("control", uneven(freeze=False, optimizer="adamw", lr=1e-3))

    def bf16(self):
        return self.run("bf16", uneven(precision="bf16"))

    def refused(self):
        """What each process is told where a run cannot begin."""
        size = self.processes.size
        cases = {
            "images": uneven(batch_size=8, train_size=8 + 2) if size > 2 else None,
            "const_time": uneven(const_time=True),
            "device": uneven(device="cuda:0"),
            "data": uneven(train_size=None, data="tests.lab.training.several_jobs:other_data"),
            "first": uneven(train_size=5000),  # each process finds that out by itself
        }
        messages = {}
        for name, settings in cases.items():
            if settings is not None:
                messages[name] = self._complaint(name, settings)
        if self.processes.main:
            (self.folder / "full").mkdir()
            (self.folder / "full" / "file").write_text("mine")
        messages["full"] = self._complaint("full", uneven())
        messages["diverged"] = self._complaint("diverged", uneven(lr=1e30))
        return messages

    def _complaint(self, name, settings):
        try:
            self.run(name, settings)
        except FreezeOutError as error:
            return str(error)
        raise AssertionError(f"{name} was not refused")

    def norm(self):
        """The greatest differences to BatchNorm over the whole batch, in double precision."""
        rank, size = self.processes.part
        torch.manual_seed(0)
        whole = nn.Sequential(
            *(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, affine=False), nn.ReLU()),
            *(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten()),
            *(nn.Linear(64, 6), nn.BatchNorm1d(6, track_running_stats=False)),
        ).double()
        net = copy.deepcopy(whole)
        synchronise(net)
        x, y = torch.randn(11, 3, 8, 8).double() * 3 + 5, torch.randn(11, 6).double()
        low, high = 11 * rank // size, 11 * (rank + 1) // size
        pairs = []
        for _ in range(3):
            expected, got = whole(x), net(x[low:high])
            ((expected - y) ** 2).sum().backward()
            ((got - y[low:high]) ** 2).sum().backward()
            pairs.append((expected[low:high], got))
        for parameter in net.parameters():
            dist.all_reduce(parameter.grad)
        pairs += zip(
            [*(p.grad for p in whole.parameters()), *whole.buffers()],
            [*(p.grad for p in net.parameters()), *net.buffers()],
            strict=True,
        )
        worst = max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)
        same_names = list(whole.state_dict()) == list(net.state_dict())
        return worst, same_names, local_norms(net)
