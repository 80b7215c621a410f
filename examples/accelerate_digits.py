"""FreezeOut in a loop with Accelerate: a small convolutional network on handwritten digits.

Run it with ``python examples/accelerate_digits.py``, or in two processes with
``accelerate launch --num_processes 2 --cpu examples/accelerate_digits.py``. It takes some seconds
and needs ``freezeout[accelerate,cli]`` (the second for the data). FreezeOut is made and prepared as
any other scheduler.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import freezeout
from freezeout.lab.data import load


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Make a convolution, norm and activation: one layer that freezes as a whole."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def main(epochs: int = 8, t0: float = 0.5, accumulation: int = 2) -> tuple[float, int]:
    """Train; return the test accuracy in percent and the number of frozen layers."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    set_seed(0)
    digits = load("digits")
    train = TensorDataset(digits.train_images.float() / 255, digits.train_labels)
    test = TensorDataset(digits.test_images.float() / 255, digits.test_labels)
    body = [block(1, 32), block(32, 32), block(32, 64, 2), block(64, 64), block(64, 64)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    model: nn.Module = nn.Sequential(*body, *head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    model, optimizer, batches, tests = accelerator.prepare(
        model,
        optimizer,
        DataLoader(train, batch_size=50, shuffle=True),
        DataLoader(test, batch_size=180),
    )
    updates = epochs * -(-len(batches) // accumulation)  # of the prepared loader, in one process
    freeze_out = freezeout.FreezeOut(optimizer, model, total_steps=updates, t0=t0)
    scheduler = accelerator.prepare(freeze_out)
    freeze_out.freezer.add_listener(
        lambda event: accelerator.print(f"step {event.step}: {event.name} froze")
    )

    begun = time.process_time()
    for epoch in range(epochs):
        model.train()
        for images, labels in batches:
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()  # counts updates, not calls
                optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    seconds = time.process_time() - begun
    model.eval()
    hits = []
    with torch.no_grad():
        for images, labels in tests:
            right = model(images).argmax(1) == labels
            hits.append(accelerator.gather_for_metrics(right))
    accuracy = 100.0 * float(torch.cat(hits).float().mean())
    accelerator.print(
        f"{freeze_out.frozen} layers frozen, test accuracy {accuracy:.1f} %, "
        f"{seconds:.2f} s of the processor"
    )
    accelerator.end_training()
    return accuracy, freeze_out.frozen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--t0", type=float, default=0.5, help="1 freezes nothing")
    parser.add_argument("--accumulation", type=int, default=2)
    given = parser.parse_args()
    main(given.epochs, given.t0, given.accumulation)
