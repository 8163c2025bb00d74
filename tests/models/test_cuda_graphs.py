# SPDX-License-Identifier: Apache-2.0
"""Replayed passes give what the network gives, and are made anew when they would not.

On a CPU a stand-in takes the place of CUDA graphs (``rehearsal.py``), so all is shown but the
capture itself.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uniformer_mm import create_model
from uniformer_mm.models import UniFormer2d, UniFormer3d, cuda_graphs
from uniformer_mm.models.cuda_graphs import MAX_RESTARTS, use_cuda_graphs
from uniformer_mm.models.recordings import CudaRecorder

from .rehearsal import Rehearsal

SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 8, 16, 16), head_dim=8)
SIDE, WARMUP = 64, 2


class Counted(CudaRecorder):
    """CUDA graphs, counted."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], None], x: Tensor, pool: object) -> Callable[[], None]:
        start = super().record(work, x, pool)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            start()

        return replay


GPU = pytest.param(
    'cuda',
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
    ],
)
devices = pytest.mark.parametrize('device', ['cpu', GPU])


def network(kind: type = UniFormer2d, **options) -> nn.Module:
    torch.manual_seed(0)
    return kind(SMALL, **options)


def recorded(plain: nn.Module, **options) -> tuple[nn.Module, Rehearsal | Counted]:
    """A copy that records, and its recorder."""
    module = copy.deepcopy(plain)
    recorder = Counted() if next(plain.parameters()).is_cuda else Rehearsal()
    use_cuda_graphs(module, recorder=recorder, **{'warmup': WARMUP, **options})
    return module, recorder


def images(seed: int, device: str = 'cpu', side: int = SIDE, rank: int = 2) -> Tensor:
    shape = (2, 3, side, side) if rank == 2 else (2, 3, 4, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def maps(result: Tensor | tuple) -> list[Tensor]:
    leaves = result if isinstance(result, tuple) else (result,)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def check(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    for y, z in zip(maps(got), maps(expected), strict=True):
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-5)


def loss_of(result: Tensor | tuple) -> Tensor:
    return sum(map_.float().square().mean() for map_ in maps(result))


def learn(
    module: nn.Module, steps: int, device: str, rank: int = 2, passes: int = 1
) -> list[float]:
    """Losses of some steps, each after as many passes."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        for index in range(passes):
            loss = loss_of(module(images(step * passes + index, device, rank=rank)))
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
    return losses


def check_states(got: nn.Module, expected: nn.Module) -> None:
    ours, theirs = got.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@devices
@pytest.mark.parametrize('mode', ['plain', 'bfloat16', 'inference_mode'])
def test_inference_is_replayed(device: str, mode: str) -> None:
    plain = network().to(device).eval()
    module, recorder = recorded(plain)
    quiet = torch.inference_mode() if mode == 'inference_mode' else torch.no_grad()
    with quiet, torch.autocast(device, torch.bfloat16, enabled=mode == 'bfloat16'):
        results = [(module(images(i, device)), plain(images(i, device))) for i in range(5)]
    for got, expected in results:
        check(got, expected)
    assert (recorder.recorded, recorder.replayed) == (1, 5 - WARMUP)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=mode == 'bfloat16'):
        check(module(images(9, device)), plain(images(9, device)))
    assert (recorder.recorded, recorder.replayed) == (1, 6 - WARMUP)


@devices
def test_gradients_under_autocast_are_the_engine_s(device: str) -> None:
    """Which runs outside of it: a product that left autocast alone has float32 gradients."""
    torch.manual_seed(0)
    light = dict(depths=(1, 1, 2, 1), stem='conv', keep_ratios=((1, 0.5), (0.5,)))
    plain = UniFormer2d({**SMALL, **light}).to(device).train()
    plain.cpu_dtypes = {torch.bfloat16, torch.float16}
    module, recorder = recorded(plain)
    for seed in range(WARMUP + 2):
        grads = []
        for one in (module, plain):
            with torch.autocast(device, torch.bfloat16):
                loss = loss_of(one(images(seed, device)))
            grads.append(torch.autograd.grad(loss, list(one.parameters())))
        for found, expected in zip(*grads, strict=True):
            # Far below a rounding to bfloat16, 0.004.
            assert (found - expected).norm() <= 1e-4 * expected.norm() + 1e-7
    assert recorder.replayed == 2 * 2


@devices
@pytest.mark.parametrize(
    ('rank', 'options'), [(2, {}), (3, {}), (2, {'frozen_stages': 2})], ids=['2d', '3d', 'frozen']
)
def test_training_learns_the_same(device: str, rank: int, options: dict) -> None:
    kind = {2: UniFormer2d, 3: UniFormer3d}[rank]
    plain = network(kind, **options).to(device)
    module, recorder = recorded(plain)
    assert learn(module, 6, device, rank) == pytest.approx(learn(plain, 6, device, rank), rel=1e-4)
    assert (recorder.recorded, recorder.replayed) == (2, 2 * (6 - WARMUP))
    check_states(module, plain)
    frozen = module.patch_embed1.proj.weight
    assert (frozen.grad is None) == ('frozen_stages' in options)


@devices
def test_gradients_add_up_over_several_passes(device: str) -> None:
    plain = network().to(device)
    module, recorder = recorded(plain)
    ours, theirs = (learn(m, 3, device, passes=2) for m in (module, plain))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert recorder.replayed == 2 * (6 - WARMUP)
    check_states(module, plain)


def test_random_depth_draws_what_the_network_draws() -> None:
    plain = network(drop_path_rate=0.5)
    module, recorder = recorded(plain)
    assert learn(module, 6, 'cpu') == pytest.approx(learn(plain, 6, 'cpu'), rel=1e-4)
    assert recorder.replayed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_random_depth_differs_from_replay_to_replay() -> None:
    module, recorder = recorded(network(drop_path_rate=0.9).cuda())
    x = images(0, 'cuda')
    for _ in range(WARMUP):
        loss_of(module(x)).backward()
    assert len({float(loss_of(module(x)).detach()) for _ in range(8)}) > 1
    assert recorder.replayed


@devices
def test_a_second_pass_before_the_backward_pass_of_the_first_runs_as_usual(device: str) -> None:
    plain = network().to(device)
    module, recorder = recorded(plain)
    for trained in (module, plain):
        learn(trained, WARMUP, device)
        trained.zero_grad()
        first, second = (loss_of(trained(images(seed, device))) for seed in (7, 8))
        (2 * first + second).backward()
    assert recorder.replayed == 2
    for (name, p), q in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_pass_without_a_backward_pass_does_not_stop_the_replays() -> None:
    module, recorder = recorded(network())
    learn(module, WARMUP, 'cpu')
    for seed in range(3):
        module(images(seed))
    assert recorder.replayed == 3


@devices
def test_a_second_backward_pass_after_another_pass_is_refused(device: str) -> None:
    module, _ = recorded(network().to(device))
    learn(module, WARMUP, device)
    first = loss_of(module(images(0, device)))
    first.backward(retain_graph=True)
    module(images(1, device))
    with pytest.raises(RuntimeError, match='second time'):
        first.backward()


def test_an_output_without_a_say_in_the_loss_gets_no_gradient() -> None:
    plain = network()
    module, recorder = recorded(plain)
    for trained in (module, plain):
        learn(trained, WARMUP, 'cpu')
        trained.zero_grad()
        loss_of(trained(images(0))[:2]).backward()
    assert recorder.replayed
    for (name, p), q in zip(module.named_parameters(), plain.parameters(), strict=True):
        expected = torch.zeros_like(p) if q.grad is None else q.grad
        torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize('name', ['uniformer_xxs', 'uniformer_small_tl'])
@pytest.mark.parametrize('training', [False, True])
def test_classifiers_with_several_outputs(name: str, training: bool) -> None:
    torch.manual_seed(0)
    plain = create_model(name, num_classes=3).train(training)
    module, recorder = recorded(plain, warmup=1)
    for seed in range(2):
        results = []
        for trained in (module, plain):
            torch.manual_seed(seed)
            with torch.set_grad_enabled(training):
                results.append(trained(images(seed)))
            if training:
                loss_of(results[-1]).backward()
        check(*results)
        assert type(results[0]) is type(results[1])
    assert recorder.replayed
    check_states(module, plain)


@devices
def test_loaded_weights_are_read(device: str) -> None:
    plain = network().to(device).eval()
    module, recorder = recorded(plain)
    other = network().to(device).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for seed in range(WARMUP + 1):
            module(images(seed, device))
        module.load_state_dict(other.state_dict())
        check(module(images(0, device)), other(images(0, device)))
    assert (recorder.recorded, recorder.replayed) == (1, 2)


class Doubled(nn.Linear):
    """What an adapter might make of a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def exchange_layer(module: nn.Module) -> None:
    layer = module.blocks3[0].mlp.fc1
    module.blocks3[0].mlp.fc1 = Doubled(layer.in_features, layer.out_features)
    module.blocks3[0].mlp.fc1.load_state_dict(layer.state_dict())


def move_parameters(module: nn.Module) -> None:
    state = {name: tensor * 1.1 for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)


def move_memory(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data * 1.1


def change_mode(module: nn.Module) -> None:
    module.blocks1[0].norm1.train()


def change_momentum(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.7


@pytest.mark.parametrize(
    'change', [exchange_layer, move_parameters, move_memory, change_mode, change_momentum]
)
def test_changes_are_recorded_anew(change: Callable[[nn.Module], None]) -> None:
    plain = network().eval()
    module, recorder = recorded(plain)
    with torch.no_grad():
        for seed in range(WARMUP + 1):
            module(images(seed))
        for changed in (module, plain):
            change(changed)
        for seed in range(WARMUP + 1):
            check(module(images(seed)), plain(images(seed)))
    assert (recorder.recorded, recorder.replayed) == (2, 2)
    check_states(module, plain)


def test_exchanged_layers_are_watched_too() -> None:
    module, recorder = recorded(network().eval(), warmup=1)
    with torch.no_grad():
        moved = [lambda m: None, exchange_layer, lambda m: move_memory(m.blocks3[0].mlp.fc1)]
        for change in moved:
            change(module)
            for seed in range(2):
                module(images(seed))
    assert recorder.recorded == 3


def test_parameters_that_keep_moving_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(cuda_graphs, 'print_log', lambda text, *_: said.append(text))
    plain = network().eval()
    module, recorder = recorded(plain, warmup=1)
    with torch.no_grad():
        for _ in range(MAX_RESTARTS + 2):
            for changed in (module, plain):
                move_parameters(changed)
            for seed in range(2):
                check(module(images(seed)), plain(images(seed)))
    assert recorder.recorded == MAX_RESTARTS
    assert len(said) == 1 and 'UniFormer2d move between passes' in said[0]


def test_training_and_evaluation_in_turn_are_recorded_once_each() -> None:
    plain = network()
    module, recorder = recorded(plain, warmup=1)
    for _ in range(3):
        for trained in (module, plain):
            learn(trained.train(), 2, 'cpu')
        with torch.no_grad():
            check(module.eval()(images(0)), plain.eval()(images(0)))
    assert recorder.recorded == 3
    check_states(module, plain)


def test_views_of_sharded_parameters_are_not_recorded() -> None:
    plain = network().eval()
    module, recorder = recorded(plain)
    layer = module.blocks1[0].mlp.fc1
    # As FSDP leaves its layers without use_orig_params.
    weight = layer.weight.detach().clone()
    del layer.weight
    layer.weight = weight
    with torch.no_grad():
        for seed in range(WARMUP + 1):
            check(module(images(seed)), plain(images(seed)))
    assert recorder.recorded == 0


class Wrapper(nn.Module):
    """As FSDP wraps a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = layer

    def forward(self, x: Tensor) -> Tensor:
        return self._fsdp_wrapped_module(x)


def test_wrapped_layers_are_not_recorded() -> None:
    plain = network().eval()
    module, recorder = recorded(plain)
    module.blocks3[0].mlp.fc1 = Wrapper(module.blocks3[0].mlp.fc1)
    with torch.no_grad():
        for seed in range(WARMUP + 1):
            check(module(images(seed)), plain(images(seed)))
    assert recorder.recorded == 0


def test_norms_that_speak_to_other_processes_are_not_recorded_in_training() -> None:
    state = cuda_graphs._State(nn.SyncBatchNorm.convert_sync_batchnorm(network()))
    assert state.now() is None
    state.module.eval()
    assert state.now() is not None


def test_what_watches_a_parameter_sees_its_gradient() -> None:
    plain = network()
    module, recorder = recorded(plain)
    seen = {}
    for name, trained in {'ours': module, 'plain': plain}.items():
        learn(trained, WARMUP, 'cpu')
        trained.zero_grad()
        parameter = trained.blocks1[0].mlp.fc1.weight
        parameter.register_hook(lambda grad, name=name: seen.update({name: grad.clone()}))
        loss_of(trained(images(0))).backward()
    assert recorder.replayed
    torch.testing.assert_close(seen['ours'], seen['plain'], rtol=1e-4, atol=1e-6)


def test_statistics_of_batches_without_gradients_in_turn_with_evaluation() -> None:
    plain = network()
    module, recorder = recorded(plain, warmup=1)
    with torch.no_grad():
        for seed in range(4):
            for training in (True, False):
                check(module.train(training)(images(seed)), plain.train(training)(images(seed)))
    assert recorder.recorded == 2
    check_states(module, plain)


def test_what_cannot_be_recorded_runs_as_usual() -> None:
    plain = network().eval()
    module, recorder = recorded(plain, max_shapes=1, warmup=1)
    with torch.no_grad():
        for seed in range(2):
            module(images(seed))
        assert recorder.replayed == 1
        # More shapes than allowed.
        for seed in range(3):
            check(module(images(seed, side=96)), plain(images(seed, side=96)))
        # A counter of operations.
        with FlopCounterMode(display=False) as flops:
            module(images(0))
        assert flops.get_total_flops() > 0
        # A compiler.
        compiled = torch.compile(module, backend='eager', fullgraph=True)
        check(compiled(images(0)), plain(images(0)))
        # A hook on a layer.
        seen = []
        handle = module.blocks3[0].attn.register_forward_hook(lambda *_: seen.append(1))
        module(images(0))
        assert seen == [1]
        handle.remove()
        assert recorder.replayed == 1
        module(images(0))
        assert recorder.replayed == 2


def test_norms_that_ask_the_host_are_not_recorded() -> None:
    plain = network(UniFormer3d)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None
    module, recorder = recorded(plain, warmup=1)
    learn(module, 3, 'cpu', rank=3)
    assert recorder.recorded == 0
    with torch.no_grad():
        for seed in range(3):
            module.eval()(images(seed, rank=3))
    assert recorder.recorded == 1


def test_an_input_with_a_gradient_gets_it() -> None:
    module, recorder = recorded(network(), warmup=1)
    learn(module, 2, 'cpu')
    x = images(0).requires_grad_()
    loss_of(module(x)).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert recorder.replayed == 2


@pytest.mark.parametrize(
    'again', [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
def test_copies_record_by_themselves(again: Callable[[nn.Module], nn.Module]) -> None:
    module, recorder = recorded(network().eval(), warmup=1)
    with torch.no_grad():
        for seed in range(2):
            module(images(seed))
        assert recorder.replayed
        other = again(module)
        assert other.forward.module is other
        assert not other.forward._shapes
        other.blocks1[0].mlp.fc1.weight.mul_(2)
        assert not torch.equal(other(images(0))[0], module(images(0))[0])
    assert list(other.state_dict()) == list(module.state_dict())


def test_nothing_changes_on_a_processor() -> None:
    plain = network().eval()
    module = copy.deepcopy(plain)
    use_cuda_graphs(module)
    with torch.no_grad():
        for seed in range(4):
            for got, expected in zip(module(images(seed)), plain(images(seed)), strict=True):
                assert torch.equal(got, expected)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match='with_cp'):
        use_cuda_graphs(network(with_cp=True))
    with pytest.raises(ValueError, match='warmup=0 must be a positive integer'):
        use_cuda_graphs(network(), warmup=0)
    compiled = network()
    compiled.compile(backend='eager')
    with pytest.raises(ValueError, match='is compiled already'):
        use_cuda_graphs(compiled)
    patched = network()
    patched.forward = lambda x: x
    with pytest.raises(ValueError, match='forward of its own'):
        use_cuda_graphs(patched)
