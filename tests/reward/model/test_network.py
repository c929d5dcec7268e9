"""The network: members by themselves, bins by numpy's quantiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.reward.model.backbone import Backbone
from components.reward.model.network import OUTPUTS, Coding, Packed, RewardNet, TemporalHead
from components.reward.params import NetworkParams
from tests.reward.model.tiny_backbones import write


@pytest.mark.parametrize("leading", [1, 3])
def test_packed_layers_are_the_members_own_layers(leading: int) -> None:
    torch.manual_seed(0)
    layer = Packed(3, 6, 4)
    x = torch.randn(leading, 5, 6)
    together = layer(x)
    assert together.shape == (3, 5, 4)
    for member in range(3):
        own = x[member if leading == 3 else 0].detach().numpy() @ layer.weight[member].detach().numpy()
        assert np.allclose(together[member].detach(), own + layer.bias[member].detach().numpy(), atol=1e-5)


def test_bins_pass_equal_shares_of_the_training_values() -> None:
    values = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0])
    coding = Coding(2, 4)
    coding.fit(values)
    assert np.allclose(
        coding.knots.T, np.quantile(values.numpy(), [0, 0.25, 0.5, 0.75, 1.0], axis=0), atol=0.02
    )
    coded = coding(values)[:, :8].reshape(-1, 2, 4)
    assert float(coded.min()) == -1.0 and float(coded.max()) == 1.0
    plain = (values - values.mean(0)) / values.std(0)
    assert torch.allclose(coding(values)[:, 8:], plain.clamp(-3, 3), atol=1e-2)
    for place, share in enumerate((0.75, 0.5, 0.25)):
        full = (coded[:, :, place] == 1.0).float().mean(0)
        assert torch.allclose(full, torch.full((2,), share), atol=0.03)


def test_bins_of_a_constant_column_are_finite_and_wild_values_stop_at_the_ends() -> None:
    coding = Coding(1, 3)
    coding.fit(torch.full((50, 1), 7.0))
    coded = coding(torch.tensor([[-1e9], [7.0], [1e9]]))
    assert torch.isfinite(coded).all()
    assert coded[0].tolist() == [-1.0] * 3 + [-3.0] and coded[2].tolist() == [1.0] * 3 + [3.0]


def test_members_differ_and_a_row_depends_on_its_clip_alone() -> None:
    torch.manual_seed(0)
    network = RewardNet(NetworkParams(members=4, hidden=8, embedding=8, bins=2), 7).eval()
    x = torch.rand(6, 7)
    out = network(x).detach()
    assert out.shape == (4, 6, OUTPUTS) and network.statistics == 7
    assert float(out.std(0).min()) > 0
    assert torch.allclose(network(x[2:3])[:, 0], out[:, 2], atol=1e-6)


def test_a_temporal_head_reads_the_order_of_any_number_of_steps() -> None:
    torch.manual_seed(0)
    head = TemporalHead(6, 4)
    steps = torch.randn(3, 7, 6) * torch.tensor([0.1, 1, 10, 1, 1, 1]) + 5.0
    head.fit(steps)
    out = head(steps).detach()
    assert out.shape == (3, 4) and head(steps[:, :1]).shape == (3, 4)
    # The same steps in another order are another clip: neighbours are compared.
    assert float((head(steps[:, [1, 0, 3, 2, 5, 4, 6]]).detach() - out).abs().max()) > 1e-3
    assert torch.allclose(head(steps[1:2])[0].detach(), out[1], atol=1e-6)


def test_a_temporal_head_weighs_what_varies_not_how_large_it_is() -> None:
    torch.manual_seed(0)
    head = TemporalHead(5, 4)
    steps = torch.randn(50, 6, 5)
    head.fit(steps)
    plain = head(steps).detach()
    scaled = steps * torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5]) + torch.arange(5.0)
    head.fit(scaled)
    assert torch.allclose(head(scaled).detach(), plain, atol=1e-4)
    head.fit(torch.full((4, 6, 5), 3.0))
    assert torch.isfinite(head(torch.full((4, 6, 5), 3.0))).all()


def test_members_share_one_backbone_which_may_be_frozen(tmp_path: Path) -> None:
    backbone = Backbone.load(write(tmp_path, "dinov2"))
    sizes = {"hidden": 8, "embedding": 8, "bins": 2, "backbone": "x"}
    own = sum(value.numel() for value in backbone.parameters())
    few, many = (
        sum(v.numel() for v in RewardNet(NetworkParams(members=m, **sizes), 7, backbone).parameters())
        for m in (1, 5)
    )
    assert many - own < 5 * (few - own)
    frozen = RewardNet(NetworkParams(**sizes, backbone_rate=0.0), 7, backbone).train()
    assert not [name for name in frozen.trained() if name.startswith("backbone.")]
    assert frozen.training and not backbone.training
    trained = RewardNet(NetworkParams(**sizes), 7, backbone).train()
    assert backbone.training and len(trained.trained()) == len(list(trained.parameters()))
    assert not [name for name in trained.own_state() if name.startswith("backbone.")]
