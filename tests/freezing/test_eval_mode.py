"""What keeps a frozen module in inference mode, in models that were saved whole."""

import pickle

from torch import nn

from freezeout import Freezer, split_layers


def test_a_model_saved_whole_under_the_former_name_is_still_loaded():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    Freezer(split_layers(net)).set_depth(1)
    saved = pickle.dumps(net, protocol=0)  # names stand in it as lines
    former = saved.replace(
        b"freezeout.freezing.eval_mode\nStayInEval\n", b"freezeout.freezing\n_StayInEval\n"
    )
    assert former != saved
    loaded = pickle.loads(former).train()
    assert not loaded[0].training
    assert loaded[1].training
