"""MultiheadAttention: fairseq's names, shapes and softmax; the oracle's numbers for all mechanisms; clear errors."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from mla_fairseq.attention import Causal, Full, Layout, MultiheadAttention, Prefix, ReLUAttention, State, View
from tests.attention import oracle
from tests.attention.cases import ANYWHERE, MECHANISMS, Problem, assert_all_close, assert_close

T, S, B, C, K, H = 9, 12, 3, 8, 6, 2
LENGTHS = {"query_length": torch.tensor([9, 7, 12]), "key_length": torch.tensor([12, 10, 9])}
MASK = torch.arange(S) < torch.tensor([[12], [10], [7]])


def module(name: str, kdim: int | None = None) -> MultiheadAttention:
    """Return a module with a bias in ``out_proj``, which is zero at first as in fairseq."""
    attention = MultiheadAttention(C, H, name, kdim=kdim).double()
    nn.init.normal_(attention.out_proj.bias)
    return attention


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def differentiate(run: Callable[[], Tensor], attention: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Return the output (T, B, C) and the gradients of inputs and parameters for a fixed direction."""
    wanted = [*inputs, *attention.parameters()]
    output = run()
    direction = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape).cos()
    gradients = torch.autograd.grad((output * direction).sum(), wanted)
    return {"output": output.detach(), **{f"gradient {i}": gradient for i, gradient in enumerate(gradients)}}


def by_hand(
    name: str, attention: MultiheadAttention, query: Tensor, key: Tensor, view: View, mask: Tensor | None
) -> Tensor:
    """Apply four linear maps around the oracle; a head is C / H adjacent channels."""
    q, k, v = (
        (x @ linear.weight.T + linear.bias).reshape(len(x), B, H, C // H).permute(1, 2, 0, 3)
        for x, linear in ((query, attention.q_proj), (key, attention.k_proj), (key, attention.v_proj))
    )
    heads, _ = oracle.attend(name, attention.mechanism, Problem(q, k, v, view, **LENGTHS, key_mask=mask))
    joined = heads.permute(2, 0, 1, 3).reshape(len(query), B, C)
    return joined @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize("name", ANYWHERE)
def test_cross_attention_is_the_oracle(name: str) -> None:
    """In one pass, and with keys that are written once and read token by token."""
    attention, query, key = module(name, K), normal(T, B, C), normal(S, B, K)
    expected = differentiate(lambda: by_hand(name, attention, query, key, Full(), MASK), attention, query, key)
    layout = Layout.whole(Full(), T, S, **LENGTHS, key_mask=MASK)
    assert_all_close(differentiate(lambda: attention(query, key, layout), attention, query, key), expected)

    def stepwise() -> Tensor:
        state: State = {}
        first = attention(query[:1], key, Layout.at(Full(), 0, 1, S, **LENGTHS, key_mask=MASK), state)
        layouts = (Layout.at(Full(), t, 1, 0, **LENGTHS) for t in range(1, T))
        return torch.cat(
            [first, *(attention(q[None], None, at, state) for q, at in zip(query[1:], layouts, strict=True))]
        )

    assert_all_close(differentiate(stepwise, attention, query, key), expected)


@pytest.mark.parametrize("name", MECHANISMS)
def test_self_attention_is_the_oracle(name: str) -> None:
    attention, x = module(name), normal(T, B, C)
    expected = differentiate(lambda: by_hand(name, attention, x, x, Causal(), None), attention, x)
    whole = differentiate(lambda: attention(x, x, Layout.whole(Causal(), T, **LENGTHS)), attention, x)
    assert_all_close(whole, expected)

    def stepwise() -> Tensor:
        state: State = {}
        layouts = (Layout.at(Causal(), t, **LENGTHS) for t in range(T))
        return torch.cat([attention(y[None], y[None], at, state) for y, at in zip(x, layouts, strict=True)])

    assert_all_close(differentiate(stepwise, attention, x), expected)


@pytest.mark.parametrize("name", ANYWHERE)
def test_wait_k_cross_attention_is_the_oracle(name: str) -> None:
    """Each call has 2 new source states, up to the end of the source."""
    attention, query, key = module(name, K), normal(T, B, C), normal(S, B, K)
    seen = (2 * torch.arange(1, T + 1)).clamp(max=S)
    expected = differentiate(lambda: by_hand(name, attention, query, key, Prefix(seen), MASK), attention, query, key)
    layout = Layout.whole(Prefix(seen), T, S, **LENGTHS, key_mask=MASK)
    assert_all_close(differentiate(lambda: attention(query, key, layout), attention, query, key), expected)

    def stepwise() -> Tensor:
        state, outputs = {}, []
        for t, (start, stop) in enumerate(pairwise([0, *seen.tolist()])):
            new, mask = key[start:stop], MASK[:, start:stop]
            at = Layout.at(Full(), t, 1, stop - start, start, **LENGTHS, key_mask=mask if stop > start else None)
            outputs.append(attention(query[t : t + 1], new if stop > start else None, at, state))
        return torch.cat(outputs)

    assert_all_close(differentiate(stepwise, attention, query, key), expected)


def padded(mask: Tensor | None) -> Layout:
    return Layout.whole(Full(), T, S, key_mask=mask)


@pytest.mark.parametrize("kdim", [None, K], ids=["self", "kdim6"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["unpadded", "padded"])
def test_softmax_is_fairseqs_own(kdim: int | None, mask: Tensor | None) -> None:
    """Names, outputs, gradients and weights; a causal view as well."""
    fairseq = pytest.importorskip("fairseq.modules")
    stock = fairseq.MultiheadAttention(C, H, kdim=kdim, vdim=kdim, encoder_decoder_attention=kdim is not None).double()
    attention, query, key = module("softmax", kdim), normal(T, B, C), normal(S, B, kdim or C)
    stock.load_state_dict(attention.state_dict())
    assert dict(stock.named_parameters()).keys() == dict(attention.named_parameters()).keys()
    padding, layout = None if mask is None else ~mask, Layout.whole(Full(), T, S, key_mask=mask)
    expected = differentiate(lambda: stock(query, key, key, key_padding_mask=padding)[0], stock, query, key)
    assert_all_close(differentiate(lambda: attention(query, key, layout), attention, query, key), expected)
    weights = stock(query, key, key, key_padding_mask=padding)[1]
    assert_close(attention.weights(query, key, layout).mean(1), weights.detach())
    if kdim is None:
        ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
        theirs = stock(query, query, query, attn_mask=ahead, need_weights=False)[0]
        assert_close(attention(query, query, Layout.whole(Causal(), T)), theirs.detach())


@pytest.mark.parametrize("kdim", [None, K], ids=["self", "kdim6"])
def test_parameters_start_as_fairseqs(kdim: int | None) -> None:
    fairseq = pytest.importorskip("fairseq.modules")
    torch.manual_seed(3)
    stock = fairseq.MultiheadAttention(64, H, kdim=kdim and 48, vdim=kdim and 48, encoder_decoder_attention=bool(kdim))
    ours = MultiheadAttention(64, H, kdim=kdim and 48).state_dict()
    for name, theirs in stock.state_dict().items():
        assert ours[name].shape == theirs.shape
        assert float(ours[name].abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.1), name


@pytest.mark.parametrize("name", MECHANISMS)
def test_dropout_is_in_the_same_place_in_every_form(name: str) -> None:
    """With everything dropped, the output is the bias in every form."""
    attention, x = MultiheadAttention(C, H, name, dropout=1.0), torch.randn(T, B, C)
    state: State = {}
    whole = Layout.whole(Causal(), T)
    for output in (attention(x, x, whole), attention(x, x, whole, state), attention(x, None, whole, state)):
        assert torch.equal(output, attention.out_proj.bias.expand(T, B, C))
    kept = attention.eval()(x, x, whole)
    assert not torch.equal(kept, attention.out_proj.bias.expand(T, B, C))
    assert torch.equal(kept, attention(x, x, whole)), "no dropout in evaluation"


@pytest.mark.parametrize(
    "names", [("layers.0.self_attn", "layers.1.self_attn"), (None, None)], ids=["named", "unnamed"]
)
def test_modules_keep_their_states_apart(names: tuple[str | None, str | None]) -> None:
    modules = [MultiheadAttention(C, H, "relu", name=name) for name in names]
    names = tuple(module.name for module in modules)
    state: State = {}
    x = torch.randn(1, B, C)
    for attention in modules:
        attention(x, x, Layout.at(Causal(), 0), state)
    assert tuple(state) == names
    assert not torch.equal(*(state[name]["memory"] for name in names))


X = torch.zeros(T, B, C)
ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "heads-do-not-divide": (lambda: MultiheadAttention(8, 3), "multiple of num_heads, but is 8 with 3 heads"),
    "no-heads": (lambda: MultiheadAttention(8, 0), "but is 8 with 0 heads"),
    "unknown-mechanism": (lambda: MultiheadAttention(C, H, "sofmax"), "unknown attention 'sofmax': choose one of"),
    "query-of-2-dimensions": (lambda: module("relu")(X[0], X), r"query must be \(T, B, 8\), but is .*, \(3, 8\)"),
    "query-channels": (lambda: module("relu")(X[..., :5], X), r"query must be \(T, B, 8\), but is .*, \(9, 3, 5\)"),
    "key-channels": (lambda: module("relu", K)(X, X), r"key must be \(S, 3, 6\) for .* but is .*, \(9, 3, 8\)"),
    "key-batch": (lambda: module("relu")(X, X[:, :2]), r"key must be \(S, 3, 8\) for .* but is .*, \(9, 2, 8\)"),
    "key-of-2-dimensions": (lambda: module("relu")(X, X[0]), r"key must be .* but is .*, \(3, 8\)"),
    "query-of-numpy": (lambda: module("relu")(X.numpy(), X), r"query must be \(T, B, 8\), but is ndarray"),
    "key-of-numpy": (lambda: module("relu")(X, X.numpy()), r"key must be .* but is ndarray"),
    "query-list": (lambda: module("relu")(X.tolist(), X), r"query must be \(T, B, 8\), but is list"),
    "heads-of-float": (lambda: MultiheadAttention(8, 2.0), r"but is 8 with 2\.0 heads"),
    "channels-of-text": (lambda: MultiheadAttention("8", 2), "but is '8' with 2 heads"),
    "mask-list": (lambda: module("relu")(X, X, layout([[True] * T] * B)), "but is list"),
    "layout-queries": (
        lambda: module("relu")(X[:2], X, layout()),
        r"\(queries, keys\) = \(9, 9\), but \(2, 9\) are",
    ),
    "layout-keys": (lambda: module("relu")(X, X[:4], layout()), r"= \(9, 9\), but \(9, 4\) are given"),
    "mask-shape": (lambda: module("relu")(X, X, layout(MASK)), r"\(B, S\) = \(3, 9\).* but is torch.bool, \(3, 12\)"),
    "mask-transposed": (lambda: module("relu")(X, X, layout(MASK[:, :9].T)), r"= \(3, 9\).* but is .*, \(9, 3\)"),
    "mask-of-numbers": (lambda: module("relu")(X, X, layout(MASK[:, :9].float())), "must be boolean.* torch.float32"),
    "no-key-no-state": (
        lambda: module("relu")(X.double(), None),
        "there is neither a key nor a state to read: give one of them",
    ),
    "weights-mask": (lambda: module("relu").weights(X, X, layout(MASK)), r"\(3, 9\).* but is torch.bool, \(3, 12\)"),
}


def layout(mask: Tensor | None = None) -> Layout:
    return Layout.at(Full(), 0, T, T, key_mask=mask)


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_shapes_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", MECHANISMS)
def test_an_empty_state_has_nothing_to_read(name: str) -> None:
    state: State = {}
    with pytest.raises(ValueError, match="this state is empty: write keys before reading it"):
        MultiheadAttention(C, H, name)(X, None, Layout.whole(Causal(), T), state)
    assert state == {}, "an error leaves the caller's state as it was"


@pytest.mark.parametrize("mechanism", [5, ReLUAttention], ids=["number", "class"])
def test_other_objects_than_mechanisms_are_refused(mechanism: object) -> None:
    with pytest.raises(TypeError, match="mechanism must be a Mechanism or a registered name"):
        MultiheadAttention(8, 2, mechanism)
