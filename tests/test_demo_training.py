"""What the demos' trainings share: runs that resume, their optimizer, and standard latents."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

from demos.diffusion_training.autoencoder import create_autoencoder
from demos.diffusion_training.components import BETA_END, BETA_START, NUM_TIMESTEPS
from demos.diffusion_training.denoiser import draw_timesteps, velocity_batch
from demos.diffusion_training.latents import standardize_latents
from demos.training.muon import MuonAdamW, split_weights
from demos.training.run import Progress, TrainingRun, learning_rate


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))


def make_optimizer(model: nn.Module) -> MuonAdamW:
    return MuonAdamW(*split_weights(model, ()), learning_rate=0.05)


def train_step(model: nn.Module, optimizer: MuonAdamW, seed: int) -> float:
    inputs = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    wanted = torch.stack([inputs.mean((1, 2, 3)), inputs[:, 0, 0, 0]], dim=1)
    loss = nn.functional.mse_loss(model(inputs), wanted)
    loss.backward()
    optimizer.step(0.02)
    return loss.item()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_optimizer_trains_convolutions_in_either_layout(layout: torch.memory_format) -> None:
    model = make_model().to(memory_format=layout)
    optimizer = make_optimizer(model)
    before = model[0].weight.detach().clone()
    losses = [train_step(model, optimizer, seed) for seed in range(60)]
    assert not torch.equal(before, model[0].weight)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert all(weight.grad is None for weight in model.parameters())


def test_weights_are_split_by_shape_and_by_name() -> None:
    matrices, others = split_weights(make_model(), ("2.",))
    assert [weight.ndim for weight in matrices] == [4]
    assert [weight.ndim for weight in others] == [1, 2, 1]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    def open_run(path: Path) -> tuple[TrainingRun, nn.Module, MuonAdamW]:
        model = make_model()
        optimizer = make_optimizer(model)
        parts = {"model": model, "optimizer": optimizer}
        return TrainingRun(path, 3600, Progress(), parts), model, optimizer

    def train(run: TrainingRun, model: nn.Module, optimizer: MuonAdamW, until: int) -> None:
        stop = Event()

        def step() -> float:
            loss = train_step(model, optimizer, run.progress.step)
            if run.progress.step + 1 == until:
                stop.set()
            return loss

        run.train(step, stop)

    whole, whole_model, optimizer = open_run(tmp_path / "whole.pt")
    train(whole, whole_model, optimizer, 8)
    first, model, optimizer = open_run(tmp_path / "parts.pt")
    train(first, model, optimizer, 3)
    second, model, optimizer = open_run(tmp_path / "parts.pt")
    assert second.progress.step == 3
    train(second, model, optimizer, 8)
    for weight, other in zip(whole_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_a_run_ends_when_its_time_is_used_up(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "state.pt", 10, Progress(elapsed_s=10.0), {})
    run.train(lambda: pytest.fail("no step was left"), Event())
    assert run.done == 1


def test_the_learning_rate_rises_then_falls_to_almost_nothing() -> None:
    rates = [learning_rate(1.0, step, 10, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.91)
    assert rates[-1] == pytest.approx(0.01)


def test_standard_latents_leave_the_pictures_as_they_were() -> None:
    torch.manual_seed(1)
    model = create_autoencoder().eval()
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        raw = model.encode(pictures).latent_dist
        decoded = model.decode(raw.mean).sample
        latents = standardize_latents(model, raw.mean).float()
        posterior = model.encode(pictures).latent_dist
        assert torch.allclose(posterior.mean, latents, atol=5e-3)
        assert torch.allclose(model.decode(posterior.mean).sample, decoded, atol=1e-4)
        spread = raw.mean.std((0, 2, 3)).view(1, -1, 1, 1)
        assert torch.allclose(posterior.std * spread, raw.std, rtol=1e-3)
    assert posterior.mean.std((0, 2, 3)).tolist() == pytest.approx([1.0] * 4, abs=1e-3)
    assert model.config.scaling_factor == 1.0


def test_noise_and_velocity_are_those_of_the_shipped_schedule() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(NUM_TIMESTEPS, BETA_START, BETA_END, prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 6, 4, 4, 4, generator=generator)
    timesteps = draw_timesteps(6, generator)
    noised, velocity = velocity_batch(latents, timesteps, noise)
    assert torch.allclose(noised, scheduler.add_noise(latents, noise, timesteps), atol=1e-5)
    assert torch.allclose(velocity, scheduler.get_velocity(latents, noise, timesteps), atol=1e-5)


def test_timesteps_are_in_range_and_mostly_late() -> None:
    timesteps = draw_timesteps(4000, torch.Generator().manual_seed(0))
    assert 0 <= int(timesteps.min()) < 60
    assert int(timesteps.max()) <= NUM_TIMESTEPS - 1
    assert float((timesteps > 500).float().mean()) > 0.6
