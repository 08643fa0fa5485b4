"""The loss of the boundary output: its labels, and that it learns."""

import torch

from mla_fairseq.criterions.boundary import boundary_labels, boundary_loss
from mla_fairseq.models.boundary import BoundaryOutput

ENDS = torch.tensor([40, 17])
SPEECH = (torch.arange(60) < 38).expand(2, -1)


def test_labels_are_at_the_states_of_their_frames() -> None:
    ended, heard = boundary_labels(15, ENDS, SPEECH).unbind(-1)
    assert ended[:, 0].nonzero().flatten().tolist() == [9, 10, 11]  # frames 36, 40 and 44
    assert ended[:, 1].nonzero().flatten().tolist() == [3, 4, 5]
    assert heard[:, 0].tolist() == [1.0] * 10 + [0.0] * 5  # state 9 is at frame 36


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    logits, real = torch.randn(15, 2, 2), torch.arange(15).unsqueeze(1) < torch.tensor([15, 8])
    other = logits.clone()
    other[8:, 1] = 50.0
    assert torch.equal(boundary_loss(logits, real, ENDS, SPEECH), boundary_loss(other, real, ENDS, SPEECH))
    other[7, 1] = 50.0
    assert not torch.equal(boundary_loss(logits, real, ENDS, SPEECH), boundary_loss(other, real, ENDS, SPEECH))


def test_it_learns_a_boundary_that_the_next_states_show() -> None:
    """States after the end have another mean, 6 states of which the output sees."""
    torch.manual_seed(0)
    output = BoundaryOutput(4)
    optimizer = torch.optim.Adam(output.parameters(), 0.02)
    places = 4 * torch.arange(40).unsqueeze(1)
    real = torch.ones(40, 16, dtype=torch.bool)
    for _ in range(150):
        ends = torch.randint(30, 120, (16,))
        states = torch.randn(40, 16, 4) * 0.3 + (places >= ends).unsqueeze(-1) * 2
        loss = boundary_loss(output(states), real, ends, torch.ones(16, 160, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = output(states)[..., 0].argmax(0) * 4
    assert (found - ends).abs().max() <= 6
