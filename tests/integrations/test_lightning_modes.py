"""Lightning puts the flags of all modules back one by one after a validation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freezeout import unfreeze

pytest.importorskip("lightning.pytorch")

from freezeout.integrations.lightning import FreezeOutCallback
from tests.integrations.stacks.lightning_run import SETTINGS, Module, loader, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]


@pytest.mark.parametrize("by_hand", [False, True])
def test_thawed_modules_train_again_in_a_second_fit(by_hand: bool) -> None:
    module: Any = Module()
    if by_hand:
        module.net[1].eval()  # this stays
    trainer(callbacks=[FreezeOutCallback(**SETTINGS)]).fit(module, loader(), loader(32))
    assert not module.net[1].training
    unfreeze(module)
    assert module.net[1].training is not by_hand
    assert all(m.training for m in module.modules() if m is not module.net[1])
    mean = module.net[1].running_mean.clone()
    module.modes.clear()
    trainer().fit(module, loader(), loader(32))
    assert module.modes
    assert all(modes == [not by_hand, True] for modes in module.modes)
    assert torch.equal(mean, module.net[1].running_mean) is by_hand
