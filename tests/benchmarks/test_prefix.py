"""The benchmark of the captured prefix at toy size. Nothing is timed."""

import pytest
import torch

from benchmarks.common.ratios import Comparison, Question
from benchmarks.prefix.overhead import Chain, line, served


@pytest.mark.parametrize(("residual", "lazies"), [(False, 5), (True, 17)])
def test_a_served_chain_runs_its_last_layer_alone(residual, lazies):
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = Chain(4, residual=residual)
    subject = served(model, x)
    assert subject.lazies == lazies
    assert torch.equal(subject.whole(), subject.last())


def test_a_chain_whose_boundary_is_computed_is_refused():
    class Drawing(Chain):
        def forward(self, x):
            return super().forward(x + torch.rand(8))

    with pytest.raises(RuntimeError, match="not valid"):
        served(Drawing(4, residual=False), torch.randn(4, 8))


def test_the_bar_is_ten_microseconds_a_lazy_tensor():
    subject = served(Chain(4, residual=False), torch.randn(4, 8))
    question = Question("served / last layer", "served", "last", None)
    for seconds, good in ((49e-6, True), (52e-6, False)):
        answer = Comparison(question, 2.0, None, None, 0.95, 8, (seconds + 1e-6, 1e-6), None)
        assert line("chain", subject, answer)[1] == good
