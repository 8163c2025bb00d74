# SPDX-License-Identifier: Apache-2.0
"""What the backbone promises beside parity: forms, freezing, checkpointing, gradients, errors."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

import uniformer_mm
from uniformer_mm.layers import DropPath, drop_path_rates, is_batch_norm
from uniformer_mm.models.arch import ARCHS, Arch, arch_name, available_archs, resolve_arch
from uniformer_mm.models.blocks import DividedBlock, GlobalBlock
from uniformer_mm.models.classifier import sample_box, swap_box
from uniformer_mm.models.uniformer import UniFormer2d, UniFormer3d

TINY = {'depths': (1, 1, 4, 1), 'dims': (8, 16, 32, 48), 'head_dim': 16}
TINY_CONV = TINY | {'stem': 'conv', 'downsample': 'conv'}
FRONTS = {2: UniFormer2d, 3: UniFormer3d}


def sample(rank: int, batch: int = 2, side: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, 3, *((4,) * (rank - 2)), side, side)


# Parameters of the classifiers and networks as measured on the released classes (recipes 1.1,
# 1.5, 1.6 and 1.7), written out here so that the table is not its own witness.
@pytest.mark.parametrize(
    ('name', 'options', 'parameters'),
    [
        ('uniformer_tiny', {}, 5_548_680),
        ('uniformer_small', {}, 21_545_256),
        ('uniformer_small_plus', {}, 24_032_552),
        ('uniformer_small_plus_dim64', {}, 24_032_552),
        ('uniformer_base', {}, 49_776_552),
        ('uniformer_base_ls', {}, 49_796_520),
        ('uniformer_small_tl', {}, 22_058_256),
        ('uniformer_small_tl_dim64', {}, 22_058_256),
        ('uniformer_small_plus_tl', {}, 24_545_552),
        ('uniformer_small_plus_tl_dim64', {}, 24_545_552),
        ('uniformer_base_tl', {}, 50_289_552),
        ('uniformer_base_tl_dim64', {}, 50_289_552),
        ('uniformer_large_ls_tl', {}, 100_103_888),
        ('uniformer_xxs', {}, 10_215_280),
        ('uniformer_xs', {}, 16_509_264),
        ('uniformer_small', {'features_only': True}, 21_033_280),
        ('uniformer_xxs', {'features_only': True}, 9_317_168),
        ('uniformer_xs', {'features_only': True}, 15_483_136),
        ('uniformer_base', {'features_only': True}, 49_264_576),
        ('uniformer3d_small', {}, 21_400_400),
        ('uniformer3d_base', {}, 49_813_200),
        ('uniformer3d_xxs', {}, 9_833_896),
        ('uniformer3d_xxs', {'layer_scale': 0.1}, 9_840_616),
        ('uniformer3d_xs', {}, 16_099_552),
        ('uniformer3d_small', {'attention': 'divided'}, 27_847_504),
        ('uniformer3d_small', {'patch_kernel_t': 3}, 23_104_336),
    ],
)
def test_parameter_counts(name: str, options: dict, parameters: int) -> None:
    with torch.device('meta'):
        model = uniformer_mm.create_model(name, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_table_carries_the_measured_counts() -> None:
    for name in available_archs():
        with torch.device('meta'):
            model = uniformer_mm.create_model(f'uniformer_{name}')
        assert sum(p.numel() for p in model.parameters()) == ARCHS[name].params, name


def test_head_dims_of_the_family() -> None:
    wide = {'small', 'small_plus_dim64', 'base', 'base_ls', 'large_ls_tl'}
    wide |= {f'{a}_tl_dim64' for a in ('small', 'small_plus', 'base')}
    narrow = {'tiny', 'xs', 'small_plus', 'small_tl', 'small_plus_tl', 'base_tl'}
    assert {n: a.head_dim for n, a in ARCHS.items()} == (
        dict.fromkeys(wide, 64) | dict.fromkeys(narrow, 32) | {'xxs': 28}
    )
    assert all(arch_name(resolve_arch(name)) == name for name in available_archs())


def test_list_models_builds_every_name() -> None:
    names = uniformer_mm.list_models()
    assert len(names) == 30
    with torch.device('meta'):
        for name in names:
            assert isinstance(uniformer_mm.create_model(name), nn.Module)


@pytest.mark.parametrize('size', [(32, 32), (33, 95), (57, 83)])
@pytest.mark.parametrize('attention', ['global', 'window', 'hybrid'])
def test_sizes_are_floored_at_every_stride(size: tuple[int, int], attention: str) -> None:
    model = UniFormer2d(TINY, attention=attention, window_size=3).eval()
    maps = model(torch.randn(1, 3, *size))
    height, width = size[0] // 4, size[1] // 4
    for stage, x in enumerate(maps):
        assert x.shape == (1, TINY['dims'][stage], height, width)
        height, width = height // 2, width // 2


def test_conv_stem_rounds_up() -> None:
    maps = UniFormer2d(TINY_CONV).eval()(torch.randn(1, 3, 33, 65))
    assert [tuple(x.shape[2:]) for x in maps] == [(9, 17), (5, 9), (3, 5), (2, 3)]


@pytest.mark.parametrize('arch', [TINY, TINY_CONV])
def test_time_is_halved_once(arch: dict) -> None:
    for kernel_t in (1, 3):
        model = UniFormer3d(arch, out_indices=(0, 1, 2, 3), patch_kernel_t=kernel_t).eval()
        assert [x.shape[2] for x in model(torch.randn(1, 3, 6, 32, 32))] == [3, 3, 3, 3]


def test_output_forms() -> None:
    image, clip = sample(2), sample(3)
    maps = UniFormer2d(TINY)(image)
    assert isinstance(maps, tuple)
    assert len(maps) == 4
    last = UniFormer2d(TINY, out_indices=(3,))(image)
    assert isinstance(last, tuple)
    assert last[0].shape == (2, 48, 2, 2)
    bare = UniFormer3d(TINY)(clip)
    assert isinstance(bare, torch.Tensor)
    assert bare.shape == (2, 48, 2, 2, 2)
    assert isinstance(UniFormer3d(TINY, out_indices=(1, 3))(clip), tuple)
    assert isinstance(UniFormer2d(TINY, out_indices=(3,), as_tuple=False)(image), torch.Tensor)


def test_norms_exist_only_for_what_is_returned() -> None:
    def norms(model: nn.Module) -> set[str]:
        return {name for name, _ in model.named_children() if name.startswith('norm')}

    assert norms(UniFormer2d(TINY)) == {'norm1', 'norm2', 'norm3', 'norm4'}
    assert norms(UniFormer2d(TINY, out_indices=(-1,))) == {'norm4'}
    assert norms(UniFormer2d(TINY, out_indices=(3,), out_norm='bn')) == {'norm'}
    assert norms(UniFormer2d(TINY, out_norm=None)) == set()
    assert norms(UniFormer3d(TINY)) == {'norm'}
    assert norms(UniFormer3d(TINY, out_indices=(2, 3))) == {'norm3', 'norm4'}


@pytest.mark.parametrize('rank', [2, 3])
@pytest.mark.parametrize('out_indices', [(3,), (0,), (1, 2), (0, 1, 2, 3)])
def test_every_parameter_gets_a_gradient(rank: int, out_indices: tuple[int, ...]) -> None:
    for attention in ('global', 'hybrid') + (('divided',) if rank == 3 else ()):
        model = FRONTS[rank](
            TINY, attention=attention, window_size=3, out_indices=out_indices, as_tuple=True
        )
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, DividedBlock):
                nn.init.normal_(module.t_attn.qkv.weight)
        loss = sum((y * torch.randn_like(y)).sum() for y in model(sample(rank)))
        loss.backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert missing == []


@pytest.mark.parametrize('rank', [2, 3])
def test_checkpointing_changes_neither_gradients_nor_statistics(rank: int) -> None:
    torch.manual_seed(0)
    arch = TINY | {'depths': (2, 2, 4, 2)}
    plain = FRONTS[rank](arch, drop_path_rate=0.3, as_tuple=True).double()
    saving = FRONTS[rank](arch, drop_path_rate=0.3, as_tuple=True, with_cp=True).double()
    partly = FRONTS[rank](arch, drop_path_rate=0.3, as_tuple=True, with_cp=(2, 1, 0, 0)).double()
    x = sample(rank).double()
    results = []
    for model in (plain, saving, partly):
        model.load_state_dict(plain.state_dict() if not results else results[0][2])
        before = copy.deepcopy(model.state_dict())
        torch.manual_seed(3)
        sum((y * y).sum() for y in model(x)).backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        results.append((grads, model.state_dict(), before))
    for grads, state, _ in results[1:]:
        torch.testing.assert_close(grads, results[0][0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(state, results[0][1], rtol=1e-12, atol=1e-12)


def test_checkpointing_recomputes_the_blocks_asked_for() -> None:
    model = UniFormer2d(TINY, with_cp=(0, 0, 3, 0))
    calls = []
    for name, module in model.named_modules():
        if re.fullmatch(r'blocks\d\.\d', name):
            module.register_forward_pre_hook(lambda *_, n=name: calls.append(n))
    sum(y.sum() for y in model(sample(2))).backward()
    assert {n for n in calls if calls.count(n) == 2} == {'blocks3.0', 'blocks3.1', 'blocks3.2'}


@pytest.mark.parametrize('stages', [-1, 0, 1, 2, 4])
def test_frozen_stages_stay_frozen(stages: int) -> None:
    model = UniFormer2d(TINY, frozen_stages=stages, drop_path_rate=0.5)
    assert model.train() is model
    frozen = tuple(f'{m}{s + 1}.' for s in range(stages) for m in ('patch_embed', 'blocks', 'norm'))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    first = model(sample(2))
    for stage in range(max(stages, 0)):
        torch.testing.assert_close(first[stage], copy.deepcopy(model).eval()(sample(2))[stage])
    after = model.state_dict()
    changed = {k.split('.')[0] for k in after if not torch.equal(before[k], after[k])}
    assert changed == {f'blocks{s}' for s in (1, 2) if s > stages}
    assert model.eval() is model
    assert not any(m.training for m in model.modules())


def test_frozen_classifier_norm_is_part_of_stage_four() -> None:
    model = UniFormer2d(TINY, out_indices=(3,), out_norm='bn', frozen_stages=4).train()
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.norm.training


def test_norm_eval_keeps_running_statistics() -> None:
    model = UniFormer2d(TINY, norm_eval=True).train()
    norms = [m for m in model.modules() if is_batch_norm(m)]
    assert norms
    assert not any(m.training for m in norms)
    before = copy.deepcopy(model.state_dict())
    model(sample(2))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(m.training for m in UniFormer2d(TINY).train().modules())


def test_hybrid_is_global_in_every_fourth_block_of_stage_three() -> None:
    with torch.device('meta'):
        model = UniFormer2d('base', attention='hybrid')
        windows = UniFormer3d('small', attention='window')
    assert [i for i, b in enumerate(model.blocks3) if b.window_size is None] == [3, 7, 11, 15, 19]
    assert {b.window_size for b in windows.blocks3} == {14}
    assert all(b.window_size is None for m in (model, windows) for b in m.blocks4)


@pytest.mark.parametrize('attention', ['window', 'hybrid'])
def test_a_window_over_the_whole_clip_is_global_attention(attention: str) -> None:
    torch.manual_seed(0)
    windowed = UniFormer3d(TINY, attention=attention, window_size=4).double().eval()
    whole = UniFormer3d(TINY).double().eval()
    whole.load_state_dict(windowed.state_dict())
    clip = sample(3).double()
    torch.testing.assert_close(windowed(clip), whole(clip), rtol=1e-10, atol=1e-12)
    wide = sample(3, side=96).double()
    assert not torch.allclose(windowed(wide), whole(wide))


def test_divided_attention_starts_as_space_only() -> None:
    torch.manual_seed(0)
    divided = DividedBlock(3, 32, 16, 4).double()
    divided.apply(lambda m: m.init_temporal() if isinstance(m, DividedBlock) else None)
    space = GlobalBlock(3, 32, 16, 4).double()
    state = {k: v for k, v in divided.state_dict().items() if not k.startswith('t_')}
    space.load_state_dict(state)
    clip = torch.randn(1, 32, 1, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(divided(clip), space(clip))
    assert torch.all(divided.t_attn.proj.weight == 1)


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    model = uniformer_mm.create_model('uniformer_tiny')
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    weights = torch.cat([m.weight.flatten() for m in linears])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(torch.all(m.bias == 0) for m in linears)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    for conv in convs:  # torch's default: uniform within 1 / sqrt(fan_in)
        bound = conv.weight[0].numel() ** -0.5
        assert 0.9 * bound < conv.weight.abs().max().item() <= bound


def test_layer_scale() -> None:
    with torch.device('meta'):
        base_ls = uniformer_mm.create_model('uniformer_base_ls')
        large = uniformer_mm.create_model('uniformer_large_ls_tl')
    keys = {k for k in base_ls.state_dict() if 'gamma' in k}
    assert len(keys) == 2 * 27
    assert all(k.startswith(('blocks3.', 'blocks4.')) for k in keys)
    assert large.blocks1[0].gamma_1.shape == (1, 128, 1, 1)
    scaled = UniFormer3d(TINY, layer_scale=0.1)
    assert scaled.blocks1[0].gamma_2.shape == (1, 8, 1, 1, 1)
    assert torch.all(scaled.blocks4[0].gamma_1 == 0.1)
    assert not any('gamma' in k for k in UniFormer2d('base_ls', layer_scale=False).state_dict())


def test_drop_path_rates_rise_over_all_blocks() -> None:
    rates = drop_path_rates((3, 4, 8, 3), 0.2)
    flat = torch.linspace(0, 0.2, 18).tolist()
    assert [r for stage in rates for r in stage] == pytest.approx(flat)
    model = UniFormer2d('small', drop_path_rate=0.2)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx(flat)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    y = layer(torch.ones(4000, 3, 2))
    kept = y[:, 0, 0] != 0
    assert torch.all(y[kept] == 1 / 0.75)
    assert torch.all(y[~kept] == 0)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(layer.eval()(y), y)


def test_token_labelling_training_unmixes_the_dense_logits() -> None:
    torch.manual_seed(0)
    arch = Arch(**TINY, token_labels=True)
    model = type(uniformer_mm.create_model('uniformer_tiny'))(arch, num_classes=5).train()
    logits, dense, box = model(sample(2, batch=4, side=224))
    assert logits.shape == (4, 5)
    assert dense.shape == (4, 49, 5)
    assert all(0 <= edge <= 7 for edge in box)
    model.mix_token = False
    assert model(sample(2, side=64))[2] == (0, 0, 0, 0)
    x = torch.arange(2 * 8 * 8 * 1.0).reshape(2, 1, 8, 8)
    mixed = swap_box(x, (1, 2, 4, 7))
    for b in range(2):
        for row in range(8):
            for col in range(8):
                inside = 1 <= row < 4 and 2 <= col < 7
                assert mixed[b, 0, row, col] == x[1 - b if inside else b, 0, row, col]
    assert torch.equal(swap_box(mixed, (1, 2, 4, 7)), x)


def test_mix_boxes_cover_half_the_map_before_clipping() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([sample_box(56, 56) for _ in range(4000)])
    assert boxes.min() >= 0
    assert boxes.max() <= 56
    shares = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).double() / 56**2
    # side s = sqrt(u), u uniform; clipping at a uniform centre keeps s - s^2 / 4 of a side.
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    expected = ((u.sqrt() - u / 4) ** 2).mean().item()
    assert shares.mean().item() == pytest.approx(expected, abs=0.02)


def test_networks_do_not_share_state() -> None:
    scaled = UniFormer2d('tiny', layer_scale=0.1)
    plain = UniFormer2d('tiny')
    assert any('gamma' in k for k in scaled.state_dict())
    assert not any('gamma' in k for k in plain.state_dict())
    arch = dict(TINY)
    UniFormer2d(arch, head_dim=8, layer_scale=0.1)
    assert arch == TINY


BAD_ARGUMENTS = [
    ({'arch': 'smal'}, "arch='smal' is not known.*'small'"),
    ({'arch': 'xxs', 'attention': 'window'}, "attention='window' does not go with an hourglass"),
    (
        {'arch': 'xs', 'attention': 'hybrid'},
        "attention='hybrid' does not go.*use attention='global'",
    ),
    ({'arch': TINY | {'keep_ratios': (1, 0.5)}}, r'keep_ratios=\(1, 0.5\) must hold two sequences'),
    ({'arch': TINY | {'keep_ratios': 0.5}}, 'keep_ratios=0.5 must hold two sequences'),
    ({'arch': TINY | {'keep_ratios': ((1, 0.5), (0.5,))}}, r'one share for each block.*\(4, 1\)'),
    ({'arch': TINY | {'keep_ratios': ((0.5,) * 4, (1,))}}, 'begin with 1'),
    ({'arch': TINY | {'keep_ratios': ((1, 0, 1, 1), (1,))}}, 'shares above 0 to 1'),
    ({'arch': TINY | {'keep_ratios': ((1,) * 4, ('1',))}}, 'shares above 0 to 1'),
    (
        {'arch': TINY | {'keep_ratios': ((1,) * 4, (1,)), 'token_labels': True}},
        'token_labels=True does not go with keep_ratios',
    ),
    ({'arch': {'depths': (1, 1, 1)}}, 'must give depths and dims'),
    ({'arch': TINY | {'depth': 3}}, r"not known: \['depth'\]"),
    ({'arch': TINY | {'dims': (8, 16, 32)}}, 'must hold 4 positive integers'),
    ({'arch': 3}, 'must be a name'),
    ({'head_dim': 48}, r'head_dim=48 does not divide the 320 channels of stage 3'),
    ({'head_dim': 0}, 'head_dim=0 must be a positive integer'),
    ({'attention': 'local'}, "attention='local' is not known"),
    ({'window_size': 0}, 'window_size=0 must be a positive integer'),
    ({'out_indices': (0, 4)}, r'out_indices=\(0, 4\) must be different stages'),
    ({'out_indices': (2, 1)}, 'rising order'),
    ({'out_indices': ()}, 'different stages'),
    ({'out_norm': 'gn'}, "out_norm='gn' is not known"),
    ({'out_norm': 'bn', 'out_indices': (2, 3)}, r'use out_indices=\(3,\)'),
    ({'as_tuple': False, 'out_indices': (1, 3)}, 'as_tuple=False returns one bare map'),
    ({'layer_scale': -1.0}, 'layer_scale=-1.0 must be a positive number'),
    ({'layer_scale': 0}, 'layer_scale=0 must be a positive number'),
    ({'layer_scale': True}, 'layer_scale=True must be a positive number'),
    ({'drop_path_rate': 1.0}, 'drop_path_rate=1.0 must be a number of at least 0 and below 1'),
    ({'frozen_stages': 5}, 'frozen_stages=5 must be the number of leading stages'),
    ({'with_cp': (0, 0, 9, 0)}, 'more blocks than the stages have'),
    ({'with_cp': (1, 2)}, 'must be True, False or 4 numbers'),
    ({'patch_kernel_t': 2}, 'patch_kernel_t=2 must be 1 or 3'),
    ({'in_channels': 0}, 'in_channels=0 must be a positive integer'),
]


@pytest.mark.parametrize(('arguments', 'message'), BAD_ARGUMENTS)
@pytest.mark.parametrize('rank', [2, 3])
def test_wrong_arguments_are_refused(rank: int, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        FRONTS[rank](**arguments)


def test_arguments_of_the_other_rank_are_refused() -> None:
    with pytest.raises(ValueError, match='needs the 3-D network'):
        UniFormer2d(TINY, attention='divided')
    with pytest.raises(ValueError, match='1 in a 2-D network'):
        UniFormer2d(TINY, patch_kernel_t=3)


@pytest.mark.parametrize(
    ('rank', 'shape', 'message'),
    [
        (2, (1, 3, 4, 64, 64), 'has 5 axes.*takes 4.*use the 3-D network'),
        (2, (3, 64, 64), r'has 3 axes.*takes 4.*add the batch axis: x\[None\]'),
        (2, (64, 64), 'has 2 axes.*takes 4.*give it these axes'),
        (3, (1, 3, 64, 64), 'has 4 axes.*takes 5.*add a time axis'),
        (3, (3, 4, 64, 64), r'has 4 axes.*takes 5.*add the batch axis: x\[None\]'),
        (3, (3, 3, 64, 64), r'add a time axis.*or the batch axis'),
        (3, (3, 64, 64), 'has 3 axes.*takes 5.*give it these axes'),
        (3, (1, 2, 3, 4, 64, 64), 'has 6 axes.*takes 5.*give it these axes'),
        (2, (1, 4, 64, 64), 'has 4 channels.*in_channels=3'),
        (3, (1, 1, 4, 64, 64), 'has 1 channels'),
        (2, (1, 3, 31, 64), 'at least 32 pixels'),
        (3, (1, 3, 4, 64, 16), 'at least 32 pixels'),
        (2, (0, 3, 64, 64), r'\(0, 3, 64, 64\) is empty.*at least one sample'),
        (3, (1, 3, 0, 64, 64), r'\(1, 3, 0, 64, 64\) is empty.*one frame'),
    ],
)
def test_wrong_inputs_are_refused(rank: int, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FRONTS[rank](TINY)(torch.zeros(shape))


@pytest.mark.parametrize('rank', [2, 3])
@pytest.mark.parametrize('arch', [TINY, TINY_CONV])
def test_inputs_of_other_types_are_refused(rank: int, arch: dict) -> None:
    x = sample(rank)
    model = FRONTS[rank](arch)
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(ValueError, match=f'dtype {dtype}.*convert it to float and normalise'):
            model(x.to(dtype))
    for given, weights in (
        (torch.float64, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float64),
        (torch.float32, torch.bfloat16),
    ):
        model.to(weights)
        with pytest.raises(ValueError, match=rf'dtype {given}.*weights have {weights}.*autocast'):
            model(x.to(given))
    with pytest.raises(ValueError, match=r'must be a torch.Tensor.*not ndarray.*torch.from_numpy'):
        model(x.numpy())
    with pytest.raises(ValueError, match=r'not list.*torch.stack'):
        model(list(x))
    classifier = uniformer_mm.create_model('uniformer_tiny' if rank == 2 else 'uniformer3d_tiny')
    with pytest.raises(ValueError, match=r'weights have torch\.float32'):
        classifier(x.double())


@pytest.mark.parametrize('rank', [2, 3])
@pytest.mark.parametrize('arch', [TINY, TINY_CONV])
def test_dtypes_that_go_together_pass(rank: int, arch: dict) -> None:
    x = sample(rank)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        FRONTS[rank](arch).to(dtype)(x.to(dtype))
    model = FRONTS[rank](arch)
    model.cpu_dtypes = {torch.bfloat16}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert all(torch.isfinite(y).all() for y in model(x.to(dtype)))
        with pytest.raises(ValueError, match=r'dtype torch\.float64.*weights have torch\.float32'):
            model(x.double())
    # Whoever changes the stem may cast there.
    model.patch_embed1.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
    model(x.double())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'name': 'uniformer_smal'}, 'did you mean.*uniformer_small'),
        ({'name': 'resnet50'}, "name='resnet50' is not known"),
        ({'name': 'uniformer_xxx'}, 'did you mean.*uniformer_xxs'),
        ({'name': 'uniformer_small', 'windows': True}, "attention='window'"),
        ({'name': 'uniformer_small', 'out_norm': 'ln'}, "option 'out_norm' is not known"),
        ({'name': 'uniformer_small', 'atention': 'window'}, "did you mean 'attention'"),
        ({'name': 'uniformer_small', 'out_indices': (1,)}, 'features_only=True'),
        ({'name': 'uniformer_small', 'features_only': True, 'num_classes': 3}, 'leave it out'),
        ({'name': 'uniformer_small', 'num_classes': -1}, 'num_classes=-1'),
    ],
)
def test_create_model_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device('meta'):
        uniformer_mm.create_model(**arguments)


def test_create_model_classes() -> None:
    assert uniformer_mm.create_model('uniformer_tiny', num_classes=7).head.out_features == 7
    pooled = uniformer_mm.create_model('uniformer_tiny', num_classes=0).eval()(sample(2))
    assert pooled.shape == (2, 256)
    with torch.device('meta'):
        assert uniformer_mm.create_model('uniformer3d_small').head.out_features == 400
