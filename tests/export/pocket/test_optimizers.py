import pytest
import torch

from export.errors import ExportError
from export.pocket.optimizers import Optimizer, orthogonal


def parameters():
    torch.manual_seed(1)
    shapes = {
        "a.weight": (6, 5, 3, 3),
        "a.bias": (6,),
        "conv_in.weight": (4, 3),
        "b.weight": (8, 4),
    }
    return {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}


def give_gradients(named, step):
    for k, p in enumerate(named.values()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + k))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_singular_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 7
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.4
    assert values.max() < 1.4
    assert torch.sum(orthogonal(matrix) * matrix) > 0


def test_adamw_is_torchs_own():
    ours, theirs = parameters(), parameters()
    mine = Optimizer(ours, kind="adamw", decay=0.1)
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99))
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        mine.update(1e-2)
        reference.step()
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name], rtol=1e-5, atol=1e-6)


def test_muon_moves_matrices_by_the_matched_size_and_leaves_borders_to_adam():
    named = parameters()
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = Optimizer(named, kind="muon", decay=0.0)
    give_gradients(named, 1)
    optimizer.update(1e-2)
    moved = (named["b.weight"].detach() - before["b.weight"]).square().mean().sqrt()
    assert moved == pytest.approx(1e-2 * 0.2, rel=0.5)
    border = (named["conv_in.weight"] - before["conv_in.weight"]).detach().abs()
    torch.testing.assert_close(border, torch.full_like(border, 1e-2), rtol=1e-3, atol=1e-6)


def test_without_a_gradient_nothing_moves():
    named = parameters()
    before = named["b.weight"].detach().clone()
    optimizer = Optimizer(named, kind="muon", decay=0.5)
    give_gradients(named, 1)
    named["b.weight"].grad = None
    optimizer.update(1e-2)
    torch.testing.assert_close(named["b.weight"], before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_state_goes_on_bit_by_bit(kind):
    one, two = parameters(), parameters()
    first = Optimizer(one, kind=kind, decay=0.01)
    for step in range(3):
        give_gradients(one, step)
        first.update(1e-2)
    flat = {name: t.clone() for name, t in first.state().items()}
    with torch.no_grad():
        for name, p in two.items():
            p.copy_(one[name])
    second = Optimizer(two, kind=kind, decay=0.01)
    second.restore(flat)
    for named, optimizer in ((one, first), (two, second)):
        give_gradients(named, 9)
        optimizer.update(1e-2)
    for name, p in one.items():
        assert torch.equal(p, two[name])


def test_an_unknown_kind_is_refused():
    with pytest.raises(ExportError, match="unknown optimizer 'sgd'"):
        Optimizer(parameters(), kind="sgd", decay=0.0)
