# SPDX-License-Identifier: Apache-2.0
"""What the light networks keep, merge and hand on, and what their classifiers return.

Outputs of the released networks are in ``test_golden.py``, gradients in ``test_official.py``, one
graph for the compiler in ``test_compile.py``.
"""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import uniformer_mm
from tests.models import official
from tests.models.test_golden import assert_detected, build, load_case
from tests.models.test_official import LIGHT, images, randomise, reference
from uniformer_mm import layers
from uniformer_mm.models import (
    UniFormer2d,
    UniFormer2dClassifier,
    UniFormer3d,
    UniFormer3dClassifier,
)
from uniformer_mm.models import hourglass as module
from uniformer_mm.models import uniformer as backbone
from uniformer_mm.models.hourglass import (
    ClassAttention,
    HourglassBlock,
    kept_tokens,
    merge,
    pool_scores,
)

DENSE = {2: UniFormer2d, 3: UniFormer3d}
CLASSIFIERS = {2: UniFormer2dClassifier, 3: UniFormer3dClassifier}


def classifiers(rank: int, arch: dict = LIGHT, **options) -> tuple[nn.Module, nn.Module]:
    """Our light classifier and the reference, in float64 with the same random state."""
    ours = CLASSIFIERS[rank](arch, num_classes=7, **options).double()
    randomise(ours)
    options.pop('with_cp', None)
    theirs = reference(rank, arch, num_classes=7, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def sample(rank: int, *size: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, 3, *((5,) * (rank - 2)), *size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def assert_same_step(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Outputs of one training forward, and every gradient of a weighted sum of them."""
    results = []
    for model in (ours, theirs):
        model.zero_grad()
        outputs = model(x)
        weights = torch.Generator().manual_seed(5)
        sum(
            (y * torch.randn(y.shape, generator=weights, dtype=y.dtype)).sum() for y in outputs
        ).backward()
        results.append((outputs, {name: p.grad for name, p in model.named_parameters()}))
    (found, grads), (expected, wanted) = results
    for y, z in zip(found, expected, strict=True):
        torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-9)
    assert set(grads) == set(wanted)
    for name, want in wanted.items():
        assert (grads[name] - want).norm() <= 1e-9 * want.norm() + 1e-9, name


# Stage 3 of these maps has sides 2x2 (one token in stage 4), odd sides, and a single row of
# stage 4.
SIZES = [(32, 32), (83, 118), (33, 210)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('rank', [2, 3])
def test_training_equals_the_reference(rank: int, size: tuple[int, int]) -> None:
    """Both heads, so the class token's own way as well."""
    ours, theirs = classifiers(rank)
    x = sample(rank, *size)
    assert_same_step(ours.train(), theirs.train(), x)
    logits, class_logits = ours(x)
    assert logits.shape == class_logits.shape == (2, 7)
    assert not torch.allclose(logits, class_logits)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('rank', [2, 3])
@pytest.mark.parametrize('batch', [1, 3])
def test_evaluation_equals_the_reference(rank: int, size: tuple[int, int], batch: int) -> None:
    ours, theirs = classifiers(rank, LIGHT | {'layer_scale': 0.3})
    x = sample(rank, *size, batch=batch)
    logits = ours.eval()(x)
    assert logits.shape == (batch, 7)
    torch.testing.assert_close(logits, theirs.eval()(x), rtol=1e-9, atol=1e-9)
    # A sample's tokens are chosen among its own.
    torch.testing.assert_close(ours(x[-1:]), logits[-1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('layer_scale', [None, 0.3])
def test_dropped_branches_still_move_the_tokens_that_are_not_kept(
    layer_scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gain of the merged token is taken before stochastic depth."""

    def factors(x: torch.Tensor) -> torch.Tensor:
        """The first sample loses its branch, the second has it twice."""
        return torch.tensor([0.0, 2.0], dtype=x.dtype).view(-1, *(1,) * (x.ndim - 1))

    monkeypatch.setattr(layers.DropPath, 'forward', lambda _, x: x * factors(x))
    monkeypatch.setattr(official.DropPath, 'forward', lambda _, x: x * factors(x))
    arch = LIGHT | {'layer_scale': layer_scale}
    ours, theirs = classifiers(2, arch)
    assert_same_step(ours.train(), theirs.train(), images(2))
    block = HourglassBlock(2, 16, 8, 3, keep_ratio=0.5, layer_scale=layer_scale).double()
    x, scores = torch.randn(2, 16, 4, 4).double(), torch.rand(2, 4, 4).double()
    moved = block(x, torch.zeros(2, 1, 16).double(), scores)[0] - (x + block.pos_embed(x))
    still = (moved[0] == 0).all(0)
    assert still.sum() == 8
    assert torch.equal(still, scores[0] >= scores[0].flatten().topk(8).values.min())


@pytest.mark.parametrize('rank', [2, 3])
def test_checkpointing_changes_no_gradient(rank: int) -> None:
    """Officially it cannot: its scores are globals."""
    ours, theirs = classifiers(rank, with_cp=(0, 0, 3, 1))
    assert_same_step(ours.train(), theirs.train(), images(rank))


def test_networks_share_nothing() -> None:
    """Two at once, in threads and one within the other's forward."""
    ours, _ = classifiers(2)
    other = copy.deepcopy(ours).eval()
    x, y = sample(2, 64, 96), sample(2, 83, 118)
    want = ours.eval()(x), other(y)

    def run_other(*_: object) -> None:
        torch.testing.assert_close(other(y), want[1], rtol=0, atol=0)

    ours.blocks3[1].register_forward_pre_hook(run_other)
    torch.testing.assert_close(ours(x), want[0], rtol=0, atol=0)
    found = {}
    threads = [
        threading.Thread(target=lambda m=m, i=i: found.update({m: m(i)}))
        for m, i in ((ours, x), (other, y))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close((found[ours], found[other]), want, rtol=0, atol=0)


def test_class_scores_are_a_row_of_the_attention_matrix() -> None:
    torch.manual_seed(0)
    attention = ClassAttention(24, 8).double()
    x = torch.randn(2, 7, 24).double()
    q, k, _ = attention.qkv(x).reshape(2, 7, 3, 3, 8).unbind(2)
    weights = torch.einsum('bnmd,bkmd->bmnk', q, k).mul(8**-0.5).softmax(-1)
    torch.testing.assert_close(attention(x)[1], weights[:, :, 0, 1:].mean(1))
    assert ClassAttention(24, 8, scores_tokens=False).double()(x)[1] is None
    assert attention.to(torch.bfloat16)(x.bfloat16())[1].dtype == torch.float32


def test_no_attention_matrix_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def attend(q: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        shapes.append(q.shape[2])
        return F.scaled_dot_product_attention(q, *args, **kwargs)

    functional = type('Functional', (), {'scaled_dot_product_attention': staticmethod(attend)})
    monkeypatch.setattr('uniformer_mm.ops.attention.F', functional)
    UniFormer2d(LIGHT).eval()(sample(2, 128, 128).float())
    # 64 tokens, then 1/2 and 3/10 of them; 1/2 and 7/10 of 16: with the class and merged tokens.
    assert shapes == [65, 34, 21, 10, 13]


def test_scores_nobody_needs_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    scores = ClassAttention.class_scores

    def count(attention: ClassAttention, qkv: torch.Tensor) -> torch.Tensor:
        seen.append(qkv.shape[1])
        return scores(attention, qkv)

    monkeypatch.setattr(ClassAttention, 'class_scores', count)
    UniFormer2d(LIGHT)(sample(2, 128, 128).float())
    # With the class token, and the merged one where there is one; the last block needs none.
    assert seen == [65, 34, 21, 10]


@pytest.mark.parametrize(
    ('tokens', 'ratio', 'count'),
    [(49, 0.5, 24), (1, 0.5, 0), (10, 0.7, 7), (100, 0.29, 29), (9, 1 / 3, 3), (1568, 0.5, 784)],
)
def test_kept_tokens(tokens: int, ratio: float, count: int) -> None:
    assert kept_tokens(tokens, ratio) == count


def test_merging_by_hand() -> None:
    x = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [5.0, 0.0]]])
    weights = torch.tensor([[1.0, 3.0, 0.0]])
    assert merge(x, weights).tolist() == [[[2.5, 17.5]]]
    assert merge(x, torch.zeros(1, 3)).tolist() == [[[0.0, 0.0]]]


def test_scores_that_underflow_give_finite_gradients() -> None:
    """A class token that looks at one token alone leaves 0 for all others in float32."""
    block = HourglassBlock(2, 16, 8, 3, keep_ratio=0.5)
    scores = torch.zeros(1, 2, 3).index_fill_(2, torch.tensor([0]), 0.5).requires_grad_()
    x = torch.randn(1, 16, 2, 3, requires_grad=True)
    outputs = block(x, torch.zeros(1, 1, 16), scores)
    sum(y.square().sum() for y in outputs).backward()
    assert all(t.isfinite().all() for t in (*outputs, x.grad, scores.grad))


def test_pooled_scores_by_hand() -> None:
    scores = torch.arange(1.0, 16.0).reshape(1, 3, 5)
    pooled = pool_scores(scores)
    means = torch.tensor([(1 + 2 + 6 + 7) / 4, (3 + 4 + 8 + 9) / 4])
    torch.testing.assert_close(pooled[0, 0], means * 120 / means.sum())
    assert torch.equal(pool_scores(torch.zeros(1, 4, 4)), torch.zeros(1, 2, 2))
    clip = torch.rand(2, 3, 4, 6)
    assert pool_scores(clip).shape == (2, 3, 2, 3)
    torch.testing.assert_close(pool_scores(clip).sum((1, 2, 3)), clip.sum((1, 2, 3)))
    torch.testing.assert_close(
        pool_scores(clip)[1, 2] / pool_scores(clip)[1, 0, 0, 0],
        F.avg_pool2d(clip[1, 2][None], 2)[0] / clip[1, 0, :2, :2].mean(),
    )


# What a wrong selection would look like, and a case of released outputs that it must miss.
WRONG = {
    'lowest': ('cls_xxs', torch.Tensor, 'topk', lambda *a, **k: torch.topk(*a, largest=False, **k)),
    'one_more': ('dense_xxs', module, 'kept_tokens', lambda *a: kept_tokens(*a) + 1),
    'plain_mean': ('video_xxs_ls_4f', module, 'merge', lambda x, w: merge(x, (w > 0).to(w.dtype))),
    'no_rescaling': ('video_xxs_8f', backbone, 'pool_scores', lambda s: F.avg_pool2d(s, 2)),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_detects(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden, owner, name, function = WRONG[wrong]
    case, outputs, fill = load_case(golden)
    model = build(case, fill)
    monkeypatch.setattr(owner, name, function)
    assert_detected(model, case, outputs, fill)


# Multiply-adds of the released networks (recipes 1.1, 1.5 and 1.7) in convolutions, linear layers
# and attention products, in 1e9.
@pytest.mark.parametrize(
    ('name', 'size', 'printed'),
    [
        ('uniformer_xxs', (128, 128), '0.425'),
        ('uniformer_xxs', (160, 160), '0.657'),
        ('uniformer_xxs', (192, 192), '0.951'),
        ('uniformer_xxs', (224, 224), '1.299'),
        ('uniformer_xs', (192, 192), '1.417'),
        ('uniformer_xs', (224, 224), '1.931'),
        ('dense_xxs', (800, 1280), '45.4'),
        ('dense_xs', (512, 2048), '65.2'),
        ('uniformer3d_xxs', (4, 128, 128), '1.00'),
        ('uniformer3d_xxs', (8, 160, 160), '3.22'),
        ('uniformer3d_xxs', (32, 160, 160), '15.26'),
        ('uniformer3d_xs', (32, 192, 192), '33.79'),
    ],
)
def test_multiply_adds(name: str, size: tuple[int, ...], printed: str) -> None:
    """Merging as a product and the class token's own row of scores add less than 0.1 %."""
    dense = name.startswith('dense')
    with torch.device('meta'):
        model = uniformer_mm.create_model(
            name.replace('dense', 'uniformer'), features_only=dense
        ).eval()
        x = torch.zeros(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    half_a_digit = 0.5 * 10 ** -len(printed.partition('.')[2])
    found, gmacs = counter.get_total_flops() / 2e9, float(printed)
    assert abs(found - gmacs) <= half_a_digit + 1e-3 * gmacs


@pytest.mark.parametrize('rank', [2, 3])
@pytest.mark.parametrize('out_indices', [(1,), (2,), (1, 3), (0, 1, 2, 3)])
def test_every_parameter_gets_a_gradient(rank: int, out_indices: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = DENSE[rank](LIGHT, out_indices=out_indices, as_tuple=True)
    built = {name for name, _ in model.named_parameters() if name.startswith('cls_')}
    upsample = {'cls_upsample.weight', 'cls_upsample.bias'} if 3 in out_indices else set()
    assert built == ({'cls_token'} | upsample if max(out_indices) > 1 else set())
    maps = model(sample(rank, 64, 96).float())
    sum((y * torch.randn_like(y)).sum() for y in maps).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # Class token and scores reach the maps.
    if upsample:
        assert all(p.grad.abs().max() > 0 for p in (model.cls_token, model.cls_upsample.weight))


def test_registered_networks_and_their_forms() -> None:
    from uniformer_mm.registry import MODELS

    x = sample(2, 64, 96).float()
    maps = MODELS.build(dict(type='UniFormer2d', arch='xxs')).eval()(x)
    assert [tuple(y.shape) for y in maps] == [
        (2, 56, 16, 24), (2, 112, 8, 12), (2, 224, 4, 6), (2, 448, 2, 3)
    ]  # fmt: skip
    clip = MODELS.build(dict(type='UniFormer3d', arch=LIGHT))(sample(3, 64, 96).float())
    assert clip.shape == (2, 48, 3, 2, 3)
    lists = LIGHT | {'keep_ratios': [list(stage) for stage in LIGHT['keep_ratios']]}
    assert UniFormer2d(lists).arch == UniFormer2d(LIGHT).arch


def test_layer_scale_keys() -> None:
    """Two scales in every block of a clip's network, none elsewhere (recipes 1.7)."""
    with torch.device('meta'):
        scaled = uniformer_mm.create_model('uniformer3d_xxs', layer_scale=0.1)
        plain = uniformer_mm.create_model('uniformer3d_xxs')
    gammas = {k: v for k, v in scaled.state_dict().items() if 'gamma' in k}
    assert len(gammas) == 2 * sum((2, 5, 8, 2))
    assert gammas['blocks1.0.gamma_1'].shape == (1, 56, 1, 1, 1)
    assert gammas['blocks4.1.gamma_2'].shape == (448,)
    assert set(scaled.state_dict()) - set(gammas) == set(plain.state_dict())


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    model = UniFormer2dClassifier('xxs', num_classes=1000)
    assert torch.all(model.cls_token == 0)
    for layer in (model.cls_upsample, model.head_cls, model.head):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert torch.all(layer.bias == 0)
    assert model.norm_cls.eps == 1e-5
    assert {b.norm1.eps for b in (*model.blocks3, *model.blocks4)} == {1e-6}


def test_heads() -> None:
    x = sample(2, 64, 64).float()
    headless = UniFormer2dClassifier(LIGHT, num_classes=0)
    assert not {'norm_cls', 'head_cls'} & {name for name, _ in headless.named_children()}
    assert headless.train()(x).shape == headless.eval()(x).shape == (2, 48)
    model = UniFormer2dClassifier(LIGHT, num_classes=3, as_tuple=True)
    assert [y.shape for y in model.train()(x)] == [(2, 3)] * 2
    (logits,) = model.eval()(x)
    with torch.no_grad():
        model.head_cls.bias += 1
        model.norm_cls.weight += 1
    assert torch.equal(model(x)[0], logits)


@pytest.mark.parametrize('stages', [2, 3, 4])
def test_frozen_stages_hold_the_class_token(stages: int) -> None:
    model = UniFormer2d(LIGHT, frozen_stages=stages).train()
    assert model.cls_token.requires_grad == (stages < 3)
    assert model.cls_upsample.weight.requires_grad == (stages < 4)


def test_class_token_has_the_rate_of_its_stage() -> None:
    model = UniFormer2d(LIGHT)
    for name, like in (('cls_token', 'patch_embed3'), ('cls_upsample.bias', 'patch_embed4')):
        depth = model.get_layer_depth(f'backbone.{name}', 'backbone.')
        assert depth == model.get_layer_depth(f'backbone.{like}.proj.bias', 'backbone.')
    assert model.get_layer_depth('cls_token')[0] == 2


@pytest.mark.parametrize('option', ['float32', 'autocast'])
def test_autocast_computes_in_bfloat16_and_scores_in_float32(option: str) -> None:
    model = UniFormer2d(LIGHT, residual_dtype=option).eval()
    model.cpu_dtypes = {torch.bfloat16, torch.float16}
    stream = {'float32': torch.float32, 'autocast': torch.bfloat16}[option]
    seen = []
    for block in (*model.blocks3, *model.blocks4):
        block.register_forward_hook(
            lambda _, __, out: seen.append([t if t is None else t.dtype for t in out])
        )
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        maps = model(sample(2, 64, 96).float())
    assert {y.dtype for y in maps} == {torch.float32}
    assert seen == [[stream, stream, torch.float32]] * 4 + [[stream, stream, None]]
