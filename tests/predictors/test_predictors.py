"""Every registered predictor: contract; each network: what is its own."""

from __future__ import annotations

import inspect

import pytest
import torch

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.predictors import ALSTM, GRU, MLP, PREDICTORS, Transformer, build_predictor
from bpqp_portfolio.predictors.transformer import positions

R, F = 12, 7
ALL = pytest.mark.parametrize("name", PREDICTORS)


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return build_predictor(name, F, **options)


def inputs(name, rows=R, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, PREDICTORS[name].window, F, generator=generator, dtype=dtype)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("train", [True, False])
def test_shape_and_dtype(name, dtype, train):
    scores = build(name).to(dtype).train(train)(inputs(name, dtype=dtype))
    assert scores.shape == (R,) and scores.dtype == dtype
    assert scores.isfinite().all() and scores.std() > 0


@ALL
def test_window_is_one_for_the_mlp_and_a_history_for_the_others(name):
    assert PREDICTORS[name].window == (1 if name == "mlp" else 20)


@ALL
def test_gradient_reaches_every_parameter_and_the_features(name):
    model = build(name)
    features = inputs(name).requires_grad_()
    weights = torch.linspace(-1, 2, R)
    (weights * model(features)).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, key
    assert features.grad.abs().amax(dim=(0, 2)).min() > 0, "a day of the history is ignored"


@ALL
def test_gradient_against_finite_differences(name):
    model = build(name, **({"activation": "tanh"} if name == "mlp" else {"hidden": 8})).double()
    features = inputs(name, rows=3, dtype=torch.float64)[:, -4:].requires_grad_()
    assert torch.autograd.gradcheck(model, (features,))


@ALL
def test_same_seed_same_network_and_scores(name):
    a, b, c = build(name), build(name), build(name, seed=1)
    features = inputs(name)
    assert torch.equal(a(features), b(features))
    assert not torch.allclose(a(features), c(features))


@ALL
def test_rows_do_not_see_one_another_in_eval_mode(name):
    model = build(name)
    model(3 * inputs(name, rows=50) + 1)  # moves the running statistics of batch norm
    model.eval()
    features = inputs(name)
    order = torch.randperm(R, generator=torch.Generator().manual_seed(2))
    scores = model(features)
    torch.testing.assert_close(model(features[order]), scores[order])
    torch.testing.assert_close(model(features[:1]), scores[:1])
    torch.testing.assert_close(torch.cat([model(row[None]) for row in features]), scores)


@ALL
def test_eval_without_gradient_gives_the_same_scores(name):
    model = build(name, dropout=0.5).eval()
    features = inputs(name)
    with torch.inference_mode():
        fast = model(features)
    torch.testing.assert_close(fast, model(features), rtol=1e-5, atol=1e-6)


@ALL
def test_dropout_acts_in_training_only(name):
    model = build(name, dropout=0.5)
    features = inputs(name)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


@ALL
def test_state_dict_round_trip(name):
    a, b = build(name).eval(), build(name, seed=1).eval()
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(inputs(name)), b(inputs(name)))


@ALL
@pytest.mark.parametrize("shape", [(R, F), (R, 3, F + 1), (R, 0, F), (R, 1, 1, F)])
def test_other_shapes_are_refused(name, shape):
    with pytest.raises(DataError, match=rf"features must be \(R, L, {F}\)"):
        build(name)(torch.zeros(shape))


@ALL
def test_unknown_option_names_the_nearest(name):
    with pytest.raises(ConfigError, match=rf"predictor '{name}': .*'droput'.*'dropout'"):
        build_predictor(name, F, droput=0.1)


@ALL
@pytest.mark.parametrize("bad", [-0.1, 1, 1.0, float("nan"), "0.1", True])
def test_dropout_outside_its_range(name, bad):
    with pytest.raises(ConfigError, match=f"predictor '{name}': dropout"):
        build_predictor(name, F, dropout=bad)


@ALL
def test_sizes_outside_their_range(name):
    cls = PREDICTORS[name]
    sizes = [key for key in inspect.signature(cls).parameters if key in ("layers", "heads")]
    for key in [*sizes, "hidden"]:
        with pytest.raises(ConfigError, match=f"{key}: must be >= "):
            build_predictor(name, F, **{key: [0] if (key, cls) == ("hidden", MLP) else 0})
    with pytest.raises(ConfigError, match="features: must be >= 1"):
        build_predictor(name, 0)


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"unknown predictor 'transfomer'.*'transformer'"):
        build_predictor("transfomer", F)


def test_batch_norm_and_a_single_row():
    model, row = build("mlp"), inputs("mlp", rows=1)
    with pytest.raises(DataError, match=r"batch of 1 row.*batch_norm"):
        model(row)
    assert model.eval()(row).shape == (1,)
    assert build("mlp", batch_norm=False)(row).shape == (1,)
    assert build("mlp", hidden=[])(row).shape == (1,), "no hidden layer, no batch norm"


def test_mlp_uses_the_last_day_only():
    model = build("mlp").eval()
    features = torch.randn(R, 5, F, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(features), model(features[:, -1:]))


def test_mlp_has_the_layers_asked_for():
    model = MLP(F, hidden=[5, 3], dropout=0.2, activation="gelu")
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 2 + ["Linear"]
    assert sum(p.numel() for p in model.parameters()) == 7 * 5 + 10 + 5 * 3 + 6 + 4
    linear = build("mlp", hidden=[])
    features = inputs("mlp")
    expected = features[:, 0] @ linear.layers[0].weight[0] + linear.layers[0].bias
    torch.testing.assert_close(linear(features), expected)


@pytest.mark.parametrize("hidden", [256, "256", [8, 2.5], [8, -1]])
def test_mlp_widths_are_checked(hidden):
    with pytest.raises(ConfigError, match=r"^predictor 'mlp': hidden: (expected|must be)"):
        build_predictor("mlp", F, hidden=hidden)


@pytest.mark.parametrize("batch_norm", ["false", 1, None])
def test_mlp_batch_norm_is_a_flag(batch_norm):
    with pytest.raises(ConfigError, match="predictor 'mlp': batch_norm: expected true or false"):
        build_predictor("mlp", F, batch_norm=batch_norm)


def test_mlp_activation_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown activation 'leakyrelu'.*'leaky_relu'"):
        build_predictor("mlp", F, activation="leakyrelu")


@pytest.mark.parametrize("cls", [GRU, ALSTM, Transformer])
def test_sequence_models_see_the_order_of_days(cls):
    torch.manual_seed(0)
    model = cls(F).eval()
    features = inputs("gru")
    order = torch.cat([torch.arange(18, -1, -1), torch.tensor([19])])  # the last day stays
    assert (model(features) - model(features[:, order])).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [GRU, ALSTM, Transformer])
@pytest.mark.parametrize("length", [1, 33])
def test_sequence_models_take_other_lengths(cls, length):
    assert cls(F)(torch.randn(4, length, F)).shape == (4,)


def test_alstm_attention_by_hand():
    model = build("alstm", hidden=6, layers=1).double().eval()
    features = inputs("alstm", dtype=torch.float64)
    states, _ = model.rnn(torch.tanh(model.embed[0](features)))
    u, w = model.attention[2].weight[0], model.attention[0]
    energy = torch.tanh(states @ w.weight.T + w.bias) @ u
    weights = energy.exp() / energy.exp().sum(dim=1, keepdim=True)
    context = torch.einsum("rl,rlh->rh", weights, states)
    both = torch.cat([states[:, -1], context], dim=1)
    expected = both @ model.head[1].weight[0] + model.head[1].bias
    torch.testing.assert_close(model(features), expected)


def test_positions_count_back_from_the_last_day():
    like = torch.zeros(1, dtype=torch.float64)
    long, short = positions(30, 8, like), positions(20, 8, like)
    torch.testing.assert_close(long[-20:], short)
    assert torch.equal(short[-1], torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64))
    assert torch.pdist(long).min() > 0.1
    assert short[-4, 1].item() == pytest.approx(torch.tensor(3 / 10.0).sin().item(), rel=1e-6)


def test_transformer_layers_start_differently():
    first, second = build("transformer").encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(first.self_attn.in_proj_weight, second.self_attn.in_proj_weight)


@pytest.mark.parametrize(("hidden", "heads"), [(9, 3), (10, 4)])
def test_transformer_width_must_suit_the_heads(hidden, heads):
    with pytest.raises(ConfigError, match=rf"multiple of heads \({heads}\), got {hidden}"):
        build_predictor("transformer", F, hidden=hidden, heads=heads)


@ALL
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(name):
    model = build(name).eval()
    features = inputs(name)
    expected = model(features)
    scores = model.cuda()(features.cuda())
    assert scores.device.type == "cuda"
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-3, atol=1e-3)
