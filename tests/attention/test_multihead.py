"""MultiheadAttention: fairseq's names and layout; torch's numbers for softmax, the oracle's for all; clear errors."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention import Causal, Full, Lengths, MultiheadAttention, Prefix, State, View, available_attention
from tests.attention import oracle
from tests.attention.cases import ANYWHERE, MECHANISMS, assert_all_close, assert_close

T, S, B, C, K, H = 9, 12, 3, 8, 6, 2
NAMES = {f"{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")} | {"out_proj.weight", "out_proj.bias"}
LENGTHS = {"query_length": torch.tensor([9, 7, 12]), "key_length": torch.tensor([12, 10, 9])}
MASK = torch.arange(S) < torch.tensor([[12], [10], [7]])


def module(name: str, kdim: int | None = None) -> MultiheadAttention:
    """With biases that count: fairseq starts the last one at zero."""
    attention = MultiheadAttention(C, H, name, kdim=kdim).double()
    nn.init.normal_(attention.out_proj.bias)
    return attention


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def differentiate(run: Callable[[], Tensor], attention: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Output (T, B, C) and the gradients of inputs and parameters for a fixed direction."""
    wanted = [*inputs, *attention.parameters()]
    output = run()
    direction = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape).cos()
    gradients = torch.autograd.grad((output * direction).sum(), wanted)
    return {"output": output.detach(), **{f"gradient {i}": gradient for i, gradient in enumerate(gradients)}}


def by_hand(
    name: str, attention: MultiheadAttention, query: Tensor, key: Tensor, view: View, mask: Tensor | None
) -> Tensor:
    """Four linear maps around the oracle, a head being C / H neighbouring channels."""
    q, k, v = (
        (x @ linear.weight.T + linear.bias).reshape(len(x), B, H, C // H).permute(1, 2, 0, 3)
        for x, linear in ((query, attention.q_proj), (key, attention.k_proj), (key, attention.v_proj))
    )
    lengths = Lengths(LENGTHS["query_length"], LENGTHS["key_length"])
    heads, _ = oracle.attend(name, attention.mechanism, q, k, v, view, mask, lengths)
    joined = heads.permute(2, 0, 1, 3).reshape(len(query), B, C)
    return joined @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize("name", ANYWHERE)
def test_cross_attention_is_the_oracle(name: str) -> None:
    """In one pass, written then read, and token by token; gradients of every projection too."""
    attention, query, key = module(name, K), normal(T, B, C), normal(S, B, K)
    expected = differentiate(lambda: by_hand(name, attention, query, key, Full(), MASK), attention, query, key)
    whole = differentiate(lambda: attention(query, key, None, MASK, **LENGTHS), attention, query, key)
    assert_all_close(whole, expected)

    def stepwise() -> Tensor:
        state: State = {}
        first = attention(query[:1], key, Full(), MASK, state, **LENGTHS)
        return torch.cat([first, *(attention(q[None], None, state=state, **LENGTHS) for q in query[1:])])

    assert_all_close(differentiate(stepwise, attention, query, key), expected)


@pytest.mark.parametrize("name", MECHANISMS)
def test_self_attention_is_the_oracle(name: str) -> None:
    attention, x = module(name), normal(T, B, C)
    expected = differentiate(lambda: by_hand(name, attention, x, x, Causal(), None), attention, x)
    assert_all_close(differentiate(lambda: attention(x, x, Causal(), **LENGTHS), attention, x), expected)

    def stepwise() -> Tensor:
        state: State = {}
        return torch.cat([attention(t[None], t[None], Causal(), None, state, **LENGTHS) for t in x])

    assert_all_close(differentiate(stepwise, attention, x), expected)


@pytest.mark.parametrize("name", ANYWHERE)
def test_waiting_cross_attention_is_the_oracle(name: str) -> None:
    """Wait-k with blocks of 2 source states: each call brings the states that arrived since the one before."""
    attention, query, key = module(name, K), normal(T, B, C), normal(S, B, K)
    seen = (2 * torch.arange(T)).clamp(max=S)
    expected = differentiate(lambda: by_hand(name, attention, query, key, Prefix(seen), MASK), attention, query, key)
    whole = differentiate(lambda: attention(query, key, Prefix(seen), MASK, **LENGTHS), attention, query, key)
    assert_all_close(whole, expected)

    def stepwise() -> Tensor:
        state, outputs = {}, []
        for t, (start, stop) in enumerate(zip([0, *seen.tolist()], seen.tolist(), strict=False)):
            new = MASK[:, start:stop]
            outputs.append(attention(query[t : t + 1], key[start:stop], Full(), new, state, **LENGTHS))
        return torch.cat(outputs)

    assert_all_close(differentiate(stepwise, attention, query, key), expected)


def torch_weights(attention: MultiheadAttention) -> dict:
    """The arguments of torch's functional form, for the same weights."""
    return {
        "embed_dim_to_check": C,
        "num_heads": H,
        "in_proj_weight": None,
        "in_proj_bias": torch.cat([attention.q_proj.bias, attention.k_proj.bias, attention.v_proj.bias]),
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
        "dropout_p": 0.0,
        "out_proj_weight": attention.out_proj.weight,
        "out_proj_bias": attention.out_proj.bias,
        "use_separate_proj_weight": True,
        "q_proj_weight": attention.q_proj.weight,
        "k_proj_weight": attention.k_proj.weight,
        "v_proj_weight": attention.v_proj.weight,
    }


@pytest.mark.parametrize("kdim", [None, K], ids=["self", "kdim6"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["unpadded", "padded"])
def test_softmax_is_torchs_own(kdim: int | None, mask: Tensor | None) -> None:
    attention, query, key = module("softmax", kdim), normal(T, B, C), normal(S, B, kdim or C)

    def theirs() -> Tensor:
        padding = None if mask is None else ~mask
        given = torch_weights(attention)
        return F.multi_head_attention_forward(query, key, key, **given, key_padding_mask=padding)[0]

    expected = differentiate(theirs, attention, query, key)
    assert_all_close(differentiate(lambda: attention(query, key, key_mask=mask), attention, query, key), expected)
    weights = F.multi_head_attention_forward(
        query, key, key, **torch_weights(attention), key_padding_mask=None if mask is None else ~mask
    )[1]
    assert_close(attention.weights(query, key, key_mask=mask).mean(1).detach(), weights.detach())


def test_causal_softmax_is_torchs_module() -> None:
    attention, x = module("softmax"), normal(T, B, C)
    stock = nn.MultiheadAttention(C, H, dtype=torch.float64)
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    stock.load_state_dict(
        {
            "in_proj_weight": torch.cat([linear.weight for linear in qkv]),
            "in_proj_bias": torch.cat([linear.bias for linear in qkv]),
            "out_proj.weight": attention.out_proj.weight,
            "out_proj.bias": attention.out_proj.bias,
        }
    )
    ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
    assert_close(attention(x, x, Causal()).detach(), stock(x, x, x, attn_mask=ahead)[0].detach())


@pytest.mark.parametrize("kdim", [None, K], ids=["self", "kdim6"])
def test_parameters_and_numbers_are_fairseqs(kdim: int | None) -> None:
    fairseq = pytest.importorskip("fairseq.modules")
    stock = fairseq.MultiheadAttention(C, H, kdim=kdim, vdim=kdim, encoder_decoder_attention=kdim is not None).double()
    attention, query, key = module("softmax", kdim), normal(T, B, C), normal(S, B, kdim or C)
    attention.load_state_dict(stock.state_dict())
    assert dict(attention.named_parameters()).keys() == NAMES
    theirs = stock(query, key, key, key_padding_mask=~MASK, need_weights=False)[0]
    assert_close(attention(query, key, key_mask=MASK).detach(), theirs.detach())


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
    """With everything dropped only the output's bias is left, whichever way the output came about."""
    attention, x = MultiheadAttention(C, H, name, dropout=1.0), torch.randn(T, B, C)
    state: State = {}
    own = Causal()
    for output in (attention(x, x, own), attention(x, x, own, state=state, **LENGTHS), attention(x, None, state=state)):
        assert torch.equal(output, attention.out_proj.bias.expand(T, B, C))
    kept = attention.eval()(x, x, own)
    assert not torch.equal(kept, attention.out_proj.bias.expand(T, B, C))
    assert torch.equal(kept, attention(x, x, own)), "no dropout in evaluation"


def test_modules_keep_their_states_apart() -> None:
    names = ("decoder.layers.0.self_attn", "decoder.layers.1.self_attn")
    modules = [MultiheadAttention(C, H, "relu", name=name) for name in names]
    state: State = {}
    x = torch.randn(1, B, C)
    for attention in modules:
        attention(x, x, Causal(), state=state)
    assert tuple(state) == names
    assert not torch.equal(*(state[name]["memory"] for name in names))


X = torch.zeros(T, B, C)
ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "heads-do-not-divide": (lambda: MultiheadAttention(8, 3), "multiple of `num_heads`, but is 8 with 3 heads"),
    "no-heads": (lambda: MultiheadAttention(8, 0), "but is 8 with 0 heads"),
    "unknown-mechanism": (lambda: MultiheadAttention(C, H, "sofmax"), "unknown attention 'sofmax': choose one of"),
    "query-of-2-dimensions": (lambda: module("relu")(X[0], X), r"query must be \(T, B, 8\), but is \(3, 8\)"),
    "query-channels": (lambda: module("relu")(X[..., :5], X), r"query must be \(T, B, 8\), but is \(9, 3, 5\)"),
    "key-channels": (lambda: module("relu", K)(X, X), r"key must be \(S, 3, 6\) for this query, but is \(9, 3, 8\)"),
    "key-batch": (lambda: module("relu")(X, X[:, :2]), r"key must be \(S, 3, 8\) for this query, but is \(9, 2, 8\)"),
    "key-of-2-dimensions": (lambda: module("relu")(X, X[0]), r"key must be .* but is \(3, 8\)"),
    "mask-shape": (lambda: module("relu")(X, X, key_mask=MASK), r"\(B, S\) = \(3, 9\), but is \(3, 12\)"),
    "mask-transposed": (lambda: module("relu")(X, X, key_mask=MASK[:, :9].T), r"= \(3, 9\), but is \(9, 3\)"),
    "no-key-no-state": (lambda: module("relu")(X, None), "without a state there is nothing to read: give `key`"),
    "weights-mask": (lambda: module("relu").weights(X, X, key_mask=MASK), r"\(3, 9\), but is \(3, 12\)"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_what_does_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_mechanism_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(available_attention())):
        MultiheadAttention(C, H, "sofmax")


@pytest.mark.parametrize("name", MECHANISMS)
def test_an_empty_state_has_nothing_to_read(name: str) -> None:
    state: State = {}
    with pytest.raises(ValueError, match="nothing was written to this state: write keys before reading it"):
        MultiheadAttention(C, H, name)(X, None, state=state, **LENGTHS)
    assert state == {}, "an error leaves the caller's state as it was"
